"""What a run keeps and shows as it goes; the fields are rows of the table of options."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..audit.counting import Preset
from ..audit.presets import PRESETS
from ..audit.rules import OWN, Counting
from ..options.table import check, option

MANY = 1_000_000  # steps


@dataclass(frozen=True)
class Keeping:
    """What a run keeps as it goes, and shows: checkpoints and previews."""

    preview_prompts: Sequence[str] = option(
        (),
        "Prompts of previews, one per line. Every preview_every steps the merged model makes a"
        " picture of each, from fixed seeds, and audits it. The chart shows how many are flagged."
        " Needs clip and vae.",
        lines=True,
    )
    preview_every: int = option(100, "Steps between previews.", low=1, high=MANY)
    preview_size: int = option(
        512, "Width and height of a preview, in pixels.", low=64, high=4096, step=64
    )
    preview_steps: int = option(
        0, "Sampling steps of a preview; 0: the default of the model's family.", low=0, high=1000
    )
    preview_guidance: float = option(
        0.0,
        "Guidance (cfg) of a preview; 0: the default of the model's family, such as 7 for SD1.5"
        " and 1 for Flux. A distilled model (Turbo) is recognized by its file name; otherwise it"
        " is sampled as its base.",
        low=0.0,
        high=30.0,
        step=0.1,
    )
    preview_preset: str = option(
        "strict", "Which classes count in the audit of the previews.", choices=PRESETS, other=OWN
    )
    save_every: int = option(
        100, "Steps between checkpoints to resume from; 0: none.", low=0, high=MANY
    )
    resume: bool = option(
        True,
        "Continue a cancelled or failed run of this name. Data and settings must be the same.",
    )

    def __post_init__(self) -> None:
        check(self)

    def preset(self, presets: Mapping[str, Preset] = PRESETS) -> Preset:
        """The preset of the previews' audit. Raises PresetError."""
        return Counting(self.preview_preset).among(presets)[0]

    @property
    def looks(self) -> dict[str, float]:
        """How previews are made, as the fields of engine/previews.py."""
        return {
            "every": self.preview_every,
            "resolution": self.preview_size,
            "sampling_steps": self.preview_steps,
            "guidance": self.preview_guidance,
        }
