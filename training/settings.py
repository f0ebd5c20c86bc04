"""What a training run is told, and what its file remembers of it."""

import json
import math
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version

from .adapters import AdapterSettings

SAFETY_MODES = ("detached", "anchored", "frozen")
SCHEDULES = ("constant", "linear", "cosine")


@dataclass(frozen=True)
class Settings:
    """Settings of a task LoRA run. A step is one optimizer step of `batch_size` x `accumulate` pictures."""

    steps: int = 1000
    batch_size: int = 1
    accumulate: int = 1
    learning_rate: float = 1e-4
    weight_decay: float = 0.01
    schedule: str = "constant"
    warmup: int = 0
    clip_norm: float = 1.0
    min_snr_gamma: float | None = None
    noise_offset: float = 0.0
    seed: int = 0
    targets: str = "attention"
    adapter: AdapterSettings = field(default_factory=AdapterSettings)
    safety_mode: str = "detached"
    anchor_lambda: float = 3.0

    def __post_init__(self):
        for name in ("steps", "batch_size", "accumulate"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1.")
        if not (math.isfinite(self.learning_rate) and self.learning_rate > 0):
            raise ValueError(f"learning_rate is {self.learning_rate}; it must be a finite number above 0.")
        for name, known in (("safety_mode", SAFETY_MODES), ("schedule", SCHEDULES)):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} is {getattr(self, name)!r}; it must be one of {', '.join(known)}.")

    def rate_at(self, step: int) -> float:
        """Learning rate of one step (from 0): linear warm-up, then constant, or falling to 0 by a line or a cosine."""
        if step < self.warmup:
            return self.learning_rate * (step + 1) / self.warmup
        done = (step - self.warmup) / max(1, self.steps - self.warmup)
        factor = {"constant": 1.0, "linear": 1.0 - done, "cosine": 0.5 * (1.0 + math.cos(math.pi * done))}[self.schedule]
        return self.learning_rate * factor

    def record(self, **more: object) -> str:
        """The `msl.training` entry: every setting, what else is given, and the versions it ran with."""
        versions = {}
        for package in ("torch", "peft", "safetensors"):
            try:
                versions[package] = version(package)
            except PackageNotFoundError:
                versions[package] = "unknown"
        return json.dumps({**asdict(self), **more, "versions": versions}, sort_keys=True)
