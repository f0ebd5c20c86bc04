"""What a run keeps and shows as it goes; the fields are rows of the table of options."""

from dataclasses import dataclass

from ..options.table import check, option

MANY = 1_000_000  # steps


@dataclass(frozen=True)
class Keeping:
    """What a run keeps as it goes, and shows: checkpoints and previews."""

    preview_every: int = option(100, "Steps between previews.", low=1, high=MANY)
    preview_size: int = option(512, "Side of a preview, pixels.", low=64, high=4096, step=64)
    preview_steps: int = option(
        0, "Sampling steps of a preview; 0: what suits the model's family.", low=0, high=1000
    )
    preview_guidance: float = option(
        0.0,
        "Guidance (cfg) of a preview; 0: what suits the model's family, such as 7 for SD1.5 and 1"
        " for Flux. A distilled model (Turbo) is known by its file's name; otherwise it is sampled"
        " as its base.",
        low=0.0,
        high=30.0,
        step=0.1,
    )
    save_every: int = option(
        100, "Steps between checkpoints to resume from; 0: none.", low=0, high=MANY
    )
    resume: bool = option(
        True,
        "Go on from the checkpoint of a run of this name that was cancelled or failed, as if it had"
        " not been. Its data and settings must be the same.",
    )

    def __post_init__(self):
        check(self)

    @property
    def looks(self) -> dict[str, float]:
        """How previews are made, as the fields of engine/previews.py."""
        return {
            "every": self.preview_every,
            "resolution": self.preview_size,
            "sampling_steps": self.preview_steps,
            "guidance": self.preview_guidance,
        }
