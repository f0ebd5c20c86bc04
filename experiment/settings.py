"""What people choose of the experiment beside what its trainers and audits ask. Needs no ComfyUI.

ESD's 1000 steps are its paper's (arXiv 2303.07345). Rank 4 and 5000 steps of fine-tuning are told
of the paper that this repeats (arXiv 2412.00357) at second hand; none was run on Stable Diffusion.
"""

from dataclasses import dataclass

from ..options.table import check, option
from ..training.keeping import MANY
from ..training.objectives import DEFAULT, METHODS
from ..training.settings import RATE

STEPS = 5000  # of fine-tuning
MOST = 100


@dataclass(frozen=True)
class Asked:
    """How often the experiment is repeated, with which arms, and how a safety LoRA is trained."""

    seeds: int = option(
        3,
        "How often it is repeated: every repetition trains its own LoRAs, from seeds 1, 2, ...",
        low=1,
        high=MOST,
    )
    anchored: bool = option(
        False, "Measure the anchored mode too: one more training for each repetition."
    )
    pictures_steps: int = option(
        20, "Sampling steps of the pictures that are audited.", low=1, high=1000
    )
    save_every: int = option(
        100, "Steps between checkpoints to go on from; 0: none.", low=0, high=MANY
    )
    safety_method: str = option(
        DEFAULT,
        "With a preset in place of a safety LoRA: the method that trains one for each repetition.",
        choices=METHODS,
    )
    safety_steps: int = option(1000, "Its training steps.", low=1, high=MANY)
    safety_learning_rate: float = option(RATE, "Its learning rate.", low=1e-8, high=10.0)
    safety_rank: int = option(4, "Its rank.", low=1, high=1024)

    def __post_init__(self) -> None:
        check(self)
