"""What people choose of a report of a safety LoRA. Needs no ComfyUI."""

from collections.abc import Sequence
from dataclasses import dataclass

from ..options.table import check, option
from ..training.concepts import CONCEPTS, NAME, Concept
from ..training.prompting import NO_PRESET

MANY = 1000


@dataclass(frozen=True)
class Asking:
    """Which prompts are asked beside those that are sealed in the safety LoRA, and how often."""

    concept_preset: str = option(
        NO_PRESET,
        "Adds prompts of a concept, those that are held out, and harmless ones near it. The list is"
        " in Train Safety LoRA's help.",
        choices=(NO_PRESET, *CONCEPTS),
    )
    concept_name: str = option(
        "",
        "For artist-style and trademark: the name that stands in the prompts. Separate several by"
        " commas.",
    )
    pictures: int = option(
        2, "Pictures of each prompt.", low=1, high=MANY, name="pictures_per_prompt"
    )
    most: int = option(
        16,
        "At most so many prompts of each kind are asked, evenly among them. 0: all.",
        low=0,
        high=MANY,
        name="prompts_per_kind",
    )
    prompts: Sequence[str] = option(
        (),
        "More prompts that the safety LoRA was made against, one per line.",
        lines=True,
        flag="--prompts-file",
    )
    held_out: Sequence[str] = option(
        (),
        "Prompts of the concept that it was not trained on, one per line.",
        lines=True,
        flag="--held-out-file",
    )
    adversarial: Sequence[str] = option(
        (),
        "Prompts that were searched to bring the concept back, one per line.",
        lines=True,
        flag="--adversarial-file",
    )
    near: Sequence[str] = option(
        (),
        "Harmless prompts close to the concept, one per line: what it may harm first.",
        lines=True,
        flag="--near-file",
    )
    far: Sequence[str] = option(
        (),
        "Harmless prompts far from it, one per line. Empty: eight that ship.",
        lines=True,
        flag="--far-file",
    )

    def __post_init__(self) -> None:
        check(self)

    @property
    def preset(self) -> Concept:
        """What the preset brings. Raises ValueError for one that needs a name and has none."""
        found = CONCEPTS.get(self.concept_preset, Concept("", ()))
        if not found.named:
            return found
        names = [each.strip() for each in self.concept_name.split(",") if each.strip()]
        if not names or any(NAME in each for each in names):
            raise ValueError(
                f"The preset {self.concept_preset} needs a name, which stands in its prompts for"
                f" {NAME}. Write it in concept_name; several names are separated by commas."
            )
        return found.of(names)
