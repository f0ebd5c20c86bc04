"""How pictures are sampled, as people choose it. Needs no ComfyUI until it is checked."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from ..options.table import check, option


def samplers() -> Iterable[str]:
    """The samplers of this ComfyUI; by an unknown name it would take its first."""
    from comfy.samplers import KSampler

    return KSampler.SAMPLERS


def schedulers() -> Iterable[str]:
    """The schedulers of this ComfyUI."""
    from comfy.samplers import KSampler

    return KSampler.SCHEDULERS


@dataclass(frozen=True)
class Sampling:
    """How pictures are sampled.

    Raises ChoiceError for a sampler or scheduler that there is not: ComfyUI would take its first.
    """

    steps: int = option(20, "Sampling steps.", low=1, high=1000)
    guidance: float = 7.0
    sampler: str = option(
        "euler", "The sampler, as in KSampler.", choices=samplers, name="sampler_name"
    )
    scheduler: str = option("normal", "The scheduler, as in KSampler.", choices=schedulers)

    def __post_init__(self) -> None:
        check(self)
        if not math.isfinite(self.guidance):  # no row: a prompt file may say any
            raise ValueError(f"guidance is {self.guidance}; it must be a finite number.")
