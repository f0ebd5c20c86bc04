"""Which prompts a run is told: of the concept, of what stays, and of what is never trained on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..host.comfy_types import Conditioning
from ..host.prompts import prompts_of
from ..modules.concepts import texts_of
from ..options.choices import chosen
from ..options.table import SAFETY, TASK, check, option
from .concepts import CONCEPTS, NAME, Concept, joined
from .near import nearest
from .objectives import METHODS
from .surrogates import check_surrogates, paired

NO_PRESET = "none"
DRAWING = [name for name, method in METHODS.items() if method.surrogates]
PIXELS: dict[str, Any] = {
    "low": 16,
    "high": 4096,
    "step": 64,
}  # latents of 8 pixels, and patches of 2


@dataclass(frozen=True)
class Erased:
    """The prompts of a safety LoRA, typed or from a preset, and its half-made pictures' size."""

    concept: str = option(
        "", "What to take away. Separate several prompts by commas.", of=(SAFETY,)
    )
    concept_preset: str = option(
        NO_PRESET,
        "Prompts that are ready, besides those in concept; some bring what is drawn in their place,"
        " and what must stay. artist-style and trademark take the name from concept. The help page"
        " has the list.",
        choices=(NO_PRESET, *CONCEPTS),
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
    surrogate: Sequence[str] = option(
        (),
        f"For the methods {', '.join(DRAWING)}: what to draw in the concept's place, such as"
        " 'a person in everyday clothes'. One line for all prompts, or one for each. A concept"
        " prompt with {}, such as '{} by Hokusai', takes every line in turn, and that line is drawn"
        " in its place.",
        lines=True,
        flag="--surrogate-file",
        of=(SAFETY,),
    )

    near: int = option(
        8,
        "How many of the preset's harmless neighbours are retained too: those that the model's own"
        " text encoder puts nearest to the concept. 0: none.",
        low=0,
        high=1000,
        of=(SAFETY,),
    )
    more_presets: str = option(
        "",
        "More presets, separated by commas, such as 'violence, weapons': their concepts are taken"
        " away too, each with its own surrogates, neighbours and held-out prompts.",
        of=(SAFETY,),
    )

    def __post_init__(self) -> None:
        check(self)
        for name in texts_of(self.more_presets.split(",")):
            chosen(name, CONCEPTS, "more_presets")

    @property
    def typed(self) -> list[str]:
        """What was typed, each once: prompts, or the names that a preset asks for."""
        return prompts_of(self.concept, self.more)

    @property
    def _chosen(self) -> list[str]:
        """The presets by name, each once."""
        return [
            each
            for each in texts_of([self.concept_preset, *self.more_presets.split(",")])
            if each != NO_PRESET
        ]

    @property
    def _named(self) -> list[str]:
        """The presets that take their name from what is typed."""
        return [each for each in self._chosen if CONCEPTS[each].named]

    @property
    def presets(self) -> list[Concept]:
        """What each preset brings, with the names that were typed."""
        named = self._named
        if named[1:]:
            raise ValueError(
                f"The presets {' and '.join(named)} both take names from concept, which can't be"
                " told apart. Train a safety LoRA with each; Modular Merge takes several."
            )
        if named and (not self.typed or any(NAME in each for each in self.typed)):
            raise ValueError(
                f"The preset {named[0]} needs a name, which stands in its prompts for"
                f" {NAME}. Write it in concept; several names are separated by commas."
            )
        found = [CONCEPTS[each] for each in self._chosen]
        return [each.of(self.typed) if each.named else each for each in found]

    @property
    def preset(self) -> Concept:
        """What all presets bring together."""
        return joined(self.presets)

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """Every prompt of the concept, each once, with its surrogate, or "" without one.

        What is typed in `surrogate` is for prompts that have none; where all have one, it takes the
        place of theirs.
        """
        own, typed = dict(self.preset.pairs), [] if self._named else self.typed
        if self.surrogate and not typed:
            own = dict.fromkeys(own, "")
        bare = [prompt for prompt, surrogate in own.items() if not surrogate]
        more = [prompt for prompt in typed if prompt not in own]
        return list((own | dict(paired([*bare, *more], self.surrogate))).items())

    @property
    def concepts(self) -> list[str]:
        """All prompts of the concept, each once."""
        return [concept for concept, _ in self.pairs]

    @property
    def texts(self) -> list[str]:
        """All prompts that an encoding is needed of, each once."""
        pairs = (text for pair in self.pairs for text in pair)
        near = self.preset.near if self.near else ()
        return texts_of((*pairs, *self.retain, *near))

    def retained(self, texts: Mapping[str, Conditioning]) -> list[str]:
        """The prompts to retain: as told, and of each preset those nearest to its concept."""
        every = self.preset
        own = dict(every.pairs)
        typed, found = [each for each in self.concepts if each not in own], list(self.retain)
        for each in self.presets:
            prompts = [prompt for prompt, _ in each.pairs]
            near = [prompt for prompt in each.near if prompt in every.near]
            found += nearest(texts, [*prompts, *typed], near, self.near)
        return texts_of(found)

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
            "held_out": texts_of([*self.held_out, *self.preset.held_out]),
            "surrogates": surrogates,
            "resolution": self.resolution,
        }


@dataclass(frozen=True)
class Anchoring:
    """The prompts that a task LoRA is anchored on."""

    concept_prompts: Sequence[str] = option(
        (),
        "Prompts of the concept for the anchored mode, one per line. Empty: those in the safety"
        " LoRA. It holds what it is shown: for other prompts too, list those, and add single words"
        " of the concept beside words of your captions, such as 'nude, pixel art'.",
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
