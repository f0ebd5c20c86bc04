"""What a training run is told, and its file remembers: rows of the table of options."""

import json
import math
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version

from ..options.table import TASK, check, option
from .adapter_settings import AdapterSettings
from .keeping import MANY, Keeping
from .objectives import METHODS, Erasure
from .objectives.task import LOSSES
from .targets import TARGETS, check_targets

SAFETY_MODES = ("detached", "anchored", "frozen")
SCHEDULES = ("constant", "linear", "cosine")
OPTIMIZERS = ("adamw", "adamw8bit", "prodigy")
PRECISIONS = ("auto", "bf16", "fp16", "fp32")
RATE = 1e-4


@dataclass(frozen=True)
class Settings:
    """Settings of a run of optimizer steps of `batch_size` x `accumulate` pictures.

    The pictures are those of all processes.
    """

    steps: int = option(1000, "Training steps (optimizer steps).", low=1, high=MANY)
    batch_size: int = option(1, "Pictures in a batch, over all processes.", low=1, high=4096)
    accumulate: int = option(1, "Batches per step (gradient accumulation).", low=1, high=4096)
    optimizer: str = option(
        "adamw",
        "The optimizer. adamw8bit needs the package bitsandbytes, prodigy needs prodigyopt.",
        choices=OPTIMIZERS,
    )
    learning_rate: float = option(
        RATE,
        "Learning rate. 1e-4 suits AdamW. Prodigy finds its own: the default then means 1.0.",
        low=1e-8,
        high=10.0,
        step=1e-6,
    )
    weight_decay: float = option(
        0.01, "Weight decay of the optimizer.", low=0.0, high=1.0, step=0.001
    )
    schedule: str = option(
        "constant", "How the learning rate changes after the warm-up.", choices=SCHEDULES
    )
    warmup: int = option(0, "Steps of linear warm-up.", low=0, high=MANY)
    clip_norm: float = option(1.0, "Largest gradient norm; 0 does not clip.", low=0.0, high=1000.0)
    precision: str = option(
        "auto",
        "Precision of the network's arithmetic. auto: bf16 on GPUs that have it, fp32 on the CPU."
        " The LoRA itself is always fp32.",
        choices=PRECISIONS,
    )
    gradient_checkpointing: bool = option(
        False, "Uses far less memory and takes about a third longer."
    )
    ema: float = option(
        0.0,
        "Save a moving average with this decay, such as 0.999. 0: save the last step.",
        low=0.0,
        high=0.99999,
        step=0.001,
        of=(TASK,),
    )
    min_snr_gamma: float = option(
        0.0,
        "Min-SNR weighting of the loss. 5: as in the paper; 0: off.",
        low=0.0,
        high=100.0,
        of=(TASK,),
    )
    noise_offset: float = option(
        0.0,
        "Noise offset: helps with very dark or bright pictures. 0: off.",
        low=0.0,
        high=1.0,
        step=0.01,
        of=(TASK,),
    )
    loss: str = option(
        "l2",
        "How an error counts. l2: squared, as in the papers; huber, l1: less weight on outliers"
        " among the pictures.",
        choices=LOSSES,
        of=(TASK,),
    )
    prior_weight: float = option(
        1.0, "Weight of the prior pictures.", low=0.0, high=100.0, of=(TASK,)
    )
    seed: int = option(0, "Seed of everything random in the run.", low=0, high=2**63 - 1)
    targets: str = option(
        "attention",
        "Which layers are trained. cross-attention: those that read the text; attention:"
        " self-attention too; attention+mlp: the feed-forward layers too; all: every linear layer"
        " and convolution.",
        choices=TARGETS,
        other="or a regular expression over layer names",
        of=(TASK,),
    )
    adapter: AdapterSettings = field(default_factory=AdapterSettings)
    safety_mode: str = option(
        "detached",
        "How the safety LoRA is treated while the task trains. detached (the paper's way): it is"
        " not on the model. anchored: it is on the model, frozen, and an anchor keeps its effect"
        " on the concept; the task LoRA then works with that safety LoRA only. frozen: the same"
        " without the anchor, which relearns the concept: for comparison, not for use.",
        choices=SAFETY_MODES,
        of=(TASK,),
    )
    anchor_lambda: float = option(3.0, "Weight of the anchor.", low=0.0, high=1000.0, of=(TASK,))
    anchor_every: int = option(
        3,
        "Compute the anchor every N steps, with N times the weight. 3 is faster than 1.",
        low=1,
        high=1000,
        of=(TASK,),
    )

    def __post_init__(self) -> None:
        check(self)
        check_targets(self.targets)
        if self.optimizer == "prodigy" and self.learning_rate == RATE:
            object.__setattr__(self, "learning_rate", 1.0)  # the default is AdamW's
        if self.optimizer == "prodigy" and self.learning_rate < 0.01:
            raise ValueError(
                f"learning_rate is {self.learning_rate}; Prodigy finds the step size itself and"
                " takes this as a factor. Use 1.0."
            )

    def rate_at(self, step: int) -> float:
        """Learning rate of one step (from 0).

        A linear warm-up, then constant, or falling to 0 by a line or a cosine.
        """
        if step < self.warmup:
            return self.learning_rate * (step + 1) / self.warmup
        done = (step - self.warmup) / max(1, self.steps - self.warmup)
        factor = {
            "constant": 1.0,
            "linear": 1.0 - done,
            "cosine": 0.5 * (1.0 + math.cos(math.pi * done)),
        }[self.schedule]
        return self.learning_rate * factor

    def anchor_weight(self, step: int) -> float:
        """lambda of one step (from 0): N times the anchor's on every N-th step, 0 on the others."""
        return (
            self.anchor_lambda * self.anchor_every if (step + 1) % self.anchor_every == 0 else 0.0
        )

    def record(self, **more: object) -> str:
        """The `msl.training` entry: every setting, what else is given, the versions it ran with."""
        versions = {}
        for package in ("torch", "peft", "safetensors"):
            try:
                versions[package] = version(package)
            except PackageNotFoundError:
                versions[package] = "unknown"
        return json.dumps({**asdict(self), **more, "versions": versions}, sort_keys=True)


def fitted(settings: Settings, erasure: Erasure) -> Settings:
    """The settings as a method takes them: the average that it saves, the rounds of a formula."""
    method = METHODS[erasure.method]
    if method.averaged:
        return replace(settings, ema=erasure.ema)
    return replace(settings, steps=method.rounds) if method.rounds else settings


KINDS = (Settings, Erasure, Keeping)  # all rows of both trainers, whatever class they end in
