"""What a run of the benchmark is told: every setting that differs between recipes, in one place."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class SafetyRecipe:
    """How one kind of safety module is trained."""

    erasure: str  # a method of training/erasure.py
    steps: int
    rate: float
    retain: bool = False  # hold the prompts of `world.OTHERS` at what the base makes of them


def _safety() -> dict[str, SafetyRecipe]:
    return {
        "esd-x": SafetyRecipe("esd-x", steps=600, rate=5e-4),
        "sdd": SafetyRecipe("sdd", steps=300, rate=5e-4),
        "sdd-retained": SafetyRecipe("sdd", steps=600, rate=1e-3, retain=True),
    }


@dataclass(frozen=True)
class Recipe:
    """Budgets and learning rates, the same for all arms.

    What differs between safety modules is in `safety`.
    """

    safety: Mapping[str, SafetyRecipe] = field(default_factory=_safety)
    safety_batch: int = 4
    safety_rank: int = 4
    eta: float = 1.0
    safety_guidance: float = 3.0
    safety_sampling_steps: int = 10
    ema: float = 0.98  # of SDD's teacher
    task_steps: int = 800
    task_batch: int = 8
    task_rate: float = 5e-4
    task_rank: int = 2
    task_targets: str = "attention"
    full_rate: float = 2e-4
    pictures: int = 512
    new_style: float = 0.5
    people: float = 0.6
    hostile_steps: int = 200
    anchor_every: int = 3
    samples: int = 16  # of each prompt, for each guidance
    guidances: tuple[float, ...] = (3.0, 7.0)
    sampling_steps: int = 12
    held_out: int = 256
    marks: tuple[int, ...] = (0, 100, 300)  # steps at which the arms over time are looked at

    @property
    def methods(self) -> tuple[str, ...]:
        return tuple(self.safety)
