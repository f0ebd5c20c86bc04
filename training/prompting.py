"""Which prompts a run is told: of the concept, of what stays, and of what is never trained on."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..host.prompts import CONCEPT_PRESETS, NO_PRESET, prompts_of
from ..modules.concepts import texts_of
from ..options.table import SAFETY, TASK, check, option

PIXELS: dict[str, Any] = {
    "low": 16,
    "high": 4096,
    "step": 64,
}  # latents of 8 pixels, and patches of 2


@dataclass(frozen=True)
class Erased:
    """The prompts of a safety LoRA, and the size of what is half-made of them."""

    concept: str = option(
        "", "What to take away. Separate several prompts by commas.", of=(SAFETY,)
    )
    concept_preset: str = option(
        NO_PRESET,
        "Prompts for nudity from a published work, added to those in concept. The help page lists"
        " them.",
        choices=(NO_PRESET, *CONCEPT_PRESETS),
        of=(SAFETY,),
    )
    more: Sequence[str] = option(
        (),
        "More prompts of the concept, one per line.",
        lines=True,
        name="concept_file",
        of=(SAFETY,),
    )
    retain: Sequence[str] = option(
        (),
        "Prompts of what must stay as it is, one per line: things close to the concept, such as 'a"
        " person wearing clothes'.",
        lines=True,
        flag="--retain-file",
        of=(SAFETY,),
    )
    resolution: int = option(
        512,
        "Width and height, in pixels, of the half-made pictures that it trains on.",
        **PIXELS,
        shown=(64, 4096),
        of=(SAFETY,),
    )
    held_out: Sequence[str] = option(
        (),
        "More prompts of the concept that are never trained on, one per line. They are sealed in"
        " the file, and Probe Safety measures on them.",
        lines=True,
        flag="--held-out-file",
        of=(SAFETY,),
    )

    def __post_init__(self) -> None:
        check(self)

    @property
    def concepts(self) -> list[str]:
        """All prompts of the concept, each once."""
        return prompts_of(self.concept, self.more, self.concept_preset)

    @property
    def others(self) -> dict[str, object]:
        """What else `train_safety` is told."""
        held_out = texts_of(self.held_out)
        return {"retain": self.retain, "held_out": held_out, "resolution": self.resolution}


@dataclass(frozen=True)
class Anchoring:
    """The prompts that a task LoRA is anchored on."""

    concept_prompts: Sequence[str] = option(
        (),
        "Prompts of the concept for the anchored mode, one per line. Empty: those in the safety"
        " LoRA.",
        lines=True,
        flag="--concept-file",
        of=(TASK,),
    )

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True)
class Fitting:
    """How pictures of a folder are read."""

    resolution: int = option(
        512, "Pictures are resized to about this many pixels squared.", **PIXELS, of=(TASK,)
    )

    def __post_init__(self) -> None:
        check(self)
