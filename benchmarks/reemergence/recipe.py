"""What a run of the benchmark is told: every setting that differs between recipes, in one place."""

from dataclasses import dataclass

METHODS = ("esd-x", "sdd")


@dataclass(frozen=True)
class Recipe:
    """Budgets and learning rates, the same for all arms; the rate of the safety module is its method's."""

    safety_steps: int = 300
    safety_batch: int = 4
    esd_rate: float = 1e-3
    sdd_rate: float = 5e-4
    safety_rank: int = 4
    eta: float = 1.0
    safety_guidance: float = 3.0
    safety_sampling_steps: int = 10
    ema: float = 0.98  # of SDD's teacher
    task_steps: int = 800
    task_batch: int = 8
    task_rate: float = 1e-3
    task_rank: int = 4
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
