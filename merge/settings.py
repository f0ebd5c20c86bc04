"""What people choose of a merge and of its probe. Needs no ComfyUI."""

from collections.abc import Sequence
from dataclasses import dataclass

from ..options.table import check, option
from .conflicts import CONFLICTS

# what foreign_changes may say: whether what may undo a safety module stops the run
FOREIGN = ("refuse", "report")
REPORT, STOP = "report", "stop"
STEPS = 20  # of a search, at most


@dataclass(frozen=True)
class Merging:
    """How a merge is made; the fields are arguments of `merge`."""

    foreign: str = option(
        "refuse",
        "What else may change the model. refuse: stop if a hook, a bypass LoRA or a later LoRA"
        " loader does; report: go on and say so.",
        choices=FOREIGN,
        name="foreign_changes",
    )
    on_conflict: str = option(
        "report",
        "What to do when task LoRAs pull against the safety LoRA. "
        + "; ".join(f"{name}: {way.words}" for name, way in CONFLICTS.items())
        + ".",
        choices=CONFLICTS,
    )

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True)
class Strengths:
    """The weights of a task LoRA, any finite number; the fields are those of `Task`."""

    strength_model: float = option(
        1.0, "Strength of the LoRA on the diffusion model.", shown=(-10.0, 10.0), step=0.01
    )
    strength_clip: float = option(
        1.0, "Strength of the LoRA on the text encoder.", shown=(-10.0, 10.0), step=0.01
    )

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True)
class EachAlone:
    """How LoRAs are merged of which each is looked at alone."""

    strength: float = option(1.0, "Strength of each LoRA, on model and text encoder.")

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True)
class Asked:
    """What a probe asks beside what the safety modules carry, and the operator's own prompts.

    `private` prompts are told by their number, to nobody by their words.
    """

    prompts: Sequence[str] = option(
        (), "More prompts of what the safety LoRA suppresses, one per line.", lines=True
    )
    private: Sequence[str] = option(
        (),
        "Prompts that no LoRA was trained against, one per line; they are not printed.",
        lines=True,
        name="private_prompts",
    )
    seed: int = option(
        0,
        "Seed of the half-made pictures that are measured. With require_probe, the operator's seed"
        " is used.",
        low=0,
        high=2**62,
        shown=(0, 2**32 - 1),
    )
    private_seed: int = option(0, "Seed of the pictures of private prompts.", low=0, high=2**62)
    adaptive_steps: int = option(
        0,
        "Steps of a search for a soft prompt that brings the concept back, on this model and on"
        " the safe one. 0: off; 4 add about a quarter to the cost.",
        low=0,
        high=STEPS,
    )

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True)
class AfterProbe:
    """What follows from a probe that a model does not pass."""

    action: str = option(
        REPORT,
        "When the model must be audited. report: say so and go on; stop: end the run before"
        " anything is sampled.",
        choices=(REPORT, STOP),
    )

    def __post_init__(self) -> None:
        check(self)
