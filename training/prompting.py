"""Which prompts a run is told: of the concept, of what stays, and of what is never trained on."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..host.prompts import CONCEPT_PRESETS, NO_PRESET, prompts_of
from ..modules.concepts import texts_of
from ..options.table import SAFETY, TASK, check, option
from .objectives import METHODS
from .surrogates import check_surrogates, paired

PIXELS: dict[str, Any] = {
    "low": 16,
    "high": 4096,
    "step": 64,
}  # latents of 8 pixels, and patches of 2


@dataclass(frozen=True)
class Erased:
    """The prompts of a safety LoRA, and the size of what is half-made of them."""

    concept: str = option(
        "", "What to take away; several prompts are separated by commas.", of=(SAFETY,)
    )
    concept_preset: str = option(
        NO_PRESET,
        "Prompts of a published work on nudity, besides those in concept. The help page has the"
        " list.",
        choices=(NO_PRESET, *CONCEPT_PRESETS),
        of=(SAFETY,),
    )
    more: Sequence[str] = option(
        (),
        "More prompts of the concept, a line each.",
        lines=True,
        name="concept_file",
        of=(SAFETY,),
    )
    retain: Sequence[str] = option(
        (),
        "Prompts of what must stay as it is, a line each: what is near the concept and should not"
        " go with it, such as 'a person wearing clothes'.",
        lines=True,
        flag="--retain-file",
        of=(SAFETY,),
    )
    resolution: int = option(
        512,
        "Side, in pixels, of the half-made pictures that it trains on.",
        **PIXELS,
        shown=(64, 4096),
        of=(SAFETY,),
    )
    held_out: Sequence[str] = option(
        (),
        "More prompts of the concept, a line each, that are never trained on: they are sealed in"
        " the file, and Probe Safety measures on them.",
        lines=True,
        flag="--held-out-file",
        of=(SAFETY,),
    )
    surrogate: Sequence[str] = option(
        (),
        "For the method surrogate: what to draw in the concept's place, such as 'a person in"
        " everyday clothes'. One line for all prompts, or one for each. A concept prompt with {},"
        " such as '{} by Hokusai', takes every line in turn, and that line is drawn in its place.",
        lines=True,
        flag="--surrogate-file",
        of=(SAFETY,),
    )

    def __post_init__(self) -> None:
        check(self)

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """Every prompt of the concept, each once, with its surrogate, or "" without one."""
        return paired(prompts_of(self.concept, self.more, self.concept_preset), self.surrogate)

    @property
    def concepts(self) -> list[str]:
        """All prompts of the concept, each once."""
        return [concept for concept, _ in self.pairs]

    def others(self, method: str) -> dict[str, Any]:
        """What else `train_safety` is told.

        Raises ValueError for a surrogate that is missing, or that the method does not use.
        """
        if self.surrogate and not METHODS[method].surrogates:
            raise ValueError(
                f"surrogate is {self.surrogate[0]!r}, and the method {method} does not use it."
                " Choose the method surrogate, or clear the surrogate."
            )
        surrogates = [surrogate for _, surrogate in self.pairs]
        check_surrogates(method, self.concepts, surrogates)
        return {
            "retain": self.retain,
            "held_out": texts_of(self.held_out),
            "surrogates": surrogates,
            "resolution": self.resolution,
        }

    @property
    def texts(self) -> list[str]:
        """All prompts that are trained on, each once."""
        pairs = (text for pair in self.pairs for text in pair)
        return list(dict.fromkeys(text for text in (*pairs, *self.retain) if text))


@dataclass(frozen=True)
class Anchoring:
    """The prompts that a task LoRA is anchored on."""

    concept_prompts: Sequence[str] = option(
        (),
        "Prompts of the concept for anchored, a line each. Empty: those that the safety module"
        " names.",
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
        512, "Pictures have about this many pixels squared.", **PIXELS, of=(TASK,)
    )

    def __post_init__(self) -> None:
        check(self)
