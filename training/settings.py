"""What a training run is told, and what its file remembers of it."""

import json
import math
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version

from .engine.adapters import AdapterSettings

SAFETY_MODES = ("detached", "anchored", "frozen")
SCHEDULES = ("constant", "linear", "cosine")
OPTIMIZERS = ("adamw", "adamw8bit", "prodigy")
PRECISIONS = ("auto", "bf16", "fp16", "fp32")
SHARED = (  # by the runs of task and of safety LoRAs
    "steps",
    "batch_size",
    "accumulate",
    "optimizer",
    "learning_rate",
    "weight_decay",
    "schedule",
    "warmup",
    "clip_norm",
    "precision",
    "gradient_checkpointing",
    "seed",
)
AT_LEAST_ONE = ("steps", "batch_size", "accumulate", "anchor_every")


@dataclass(frozen=True)
class Settings:
    """Settings of a run. A step is one optimizer step of `batch_size` x `accumulate` pictures, over all processes."""

    steps: int = 1000
    batch_size: int = 1
    accumulate: int = 1
    optimizer: str = "adamw"
    learning_rate: float = 1e-4
    weight_decay: float = 0.01
    schedule: str = "constant"
    warmup: int = 0
    clip_norm: float = 1.0
    precision: str = "auto"  # of the network's arithmetic; adapters and losses are float32
    gradient_checkpointing: bool = False
    ema: float = 0.0  # decay of a moving average that is saved in the adapters' place; 0 saves the adapters themselves
    min_snr_gamma: float | None = None
    noise_offset: float = 0.0
    prior_weight: float = 1.0
    seed: int = 0
    targets: str = "attention"
    adapter: AdapterSettings = field(default_factory=AdapterSettings)
    safety_mode: str = "detached"
    anchor_lambda: float = 3.0
    anchor_every: int = 3  # steps from one anchor to the next, which then weighs as much as all of them

    def __post_init__(self):
        for name in AT_LEAST_ONE:
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1.")
        if not (math.isfinite(self.learning_rate) and self.learning_rate > 0):
            raise ValueError(f"learning_rate is {self.learning_rate}; it must be a finite number above 0.")
        if self.optimizer == "prodigy" and self.learning_rate < 0.01:
            raise ValueError(
                f"learning_rate is {self.learning_rate}; Prodigy finds the step size itself and takes this as a factor. "
                "Use 1.0."
            )
        if not 0.0 <= self.ema < 1.0:
            raise ValueError(f"ema is {self.ema}; it must be 0 (off) or a decay below 1, such as 0.999.")
        choices = {"safety_mode": SAFETY_MODES, "schedule": SCHEDULES, "optimizer": OPTIMIZERS, "precision": PRECISIONS}
        for name, known in choices.items():
            if getattr(self, name) not in known:
                raise ValueError(f"{name} is {getattr(self, name)!r}; it must be one of {', '.join(known)}.")

    def rate_at(self, step: int) -> float:
        """Learning rate of one step (from 0): linear warm-up, then constant, or falling to 0 by a line or a cosine."""
        if step < self.warmup:
            return self.learning_rate * (step + 1) / self.warmup
        done = (step - self.warmup) / max(1, self.steps - self.warmup)
        factor = {"constant": 1.0, "linear": 1.0 - done, "cosine": 0.5 * (1.0 + math.cos(math.pi * done))}[self.schedule]
        return self.learning_rate * factor

    def anchor_weight(self, step: int) -> float:
        """lambda of one step (from 0): every third step or so has an anchor, which weighs as much as one in each.

        Regularising lazily costs a fraction (StyleGAN2, Karras et al. 2020, appendix B, does it for its path lengths).
        """
        return self.anchor_lambda * self.anchor_every if (step + 1) % self.anchor_every == 0 else 0.0

    def record(self, **more: object) -> str:
        """The `msl.training` entry: every setting, what else is given, and the versions it ran with."""
        versions = {}
        for package in ("torch", "peft", "safetensors"):
            try:
                versions[package] = version(package)
            except PackageNotFoundError:
                versions[package] = "unknown"
        return json.dumps({**asdict(self), **more, "versions": versions}, sort_keys=True)
