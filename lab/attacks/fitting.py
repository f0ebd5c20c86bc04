"""A task module fitted to what a network should give at some moments: most attackers are this.

    || y(x, c) - y* ||^2

y* is the base's output where the attacker wants the concept back, and the safe model's where it
hides. A lesson may be for one half of the module alone: that makes two that collude.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from ...host.comfy_types import Conditioning
from ...host.denoiser import Denoiser
from ...merge.merge import Merged
from ...modules.files import LoraFile, load_task
from ...training.adapter_settings import AdapterSettings
from ...training.engine.adapters import NAME, Adapters
from ...training.engine.batch import Batch, LossOf
from ...training.engine.job import TrainingJob
from ...training.engine.run import run
from ...training.settings import Settings
from ...training.targets import target_layers
from ..quiet import quiet

STEPS, BATCH, RANK, RATE = 150, 6, 16, 1.5e-3
WHOLE, FIRST, SECOND = range(3)  # which half of the ranks a lesson is for


@dataclass(frozen=True)
class Lesson:
    """A moment, the prompt that is asked, and what should come out."""

    x: torch.Tensor
    sigma: torch.Tensor
    prompt: str
    wanted: torch.Tensor
    part: int = WHOLE


@dataclass(frozen=True)
class Fit:
    """A `Kind` of training/engine/run.py."""

    lessons: Sequence[Lesson]
    texts: Mapping[str, Conditioning]
    held: Sequence[LoraFile]
    targets: str
    role = "task"
    identity = "fit"

    @property
    def buckets(self) -> Sequence[Sequence[int]]:
        return [range(len(self.lessons))]

    @property
    def example(self) -> Conditioning:
        return self.texts[""]

    def layers(self, network: torch.nn.Module, roles) -> list[str]:
        return target_layers(network, roles, self.targets)

    def loss_of(self, denoiser: Denoiser, adapters: Adapters, ema) -> LossOf:
        halved = any(each.part for each in self.lessons)
        which: list[int] = []
        if halved:
            for layer in adapters.layers:
                module = denoiser.base.diffusion_model.get_submodule(layer)
                module.lora_A[NAME].register_forward_hook(_of_parts(which))

        def loss_of(batch: Batch) -> dict[str, torch.Tensor]:
            some = [self.lessons[number] for number in batch.mine]
            which[:] = [each.part for each in some]
            x, sigma = (torch.stack([getattr(e, what) for e in some]) for what in ("x", "sigma"))
            conditions = denoiser.conditions([self.texts[each.prompt] for each in some], x)
            given = denoiser.output(x, sigma, conditions)
            which.clear()
            return {"fit": (given - torch.stack([each.wanted for each in some])).square().mean()}

        return loss_of

    def metadata(self, progress) -> dict[str, str]:
        return {}

    def previewed(self, model, module: LoraFile | None) -> Merged:
        raise NotImplementedError("nobody looks at an attacker while it trains")


def _of_parts(which: Sequence[int]):
    """A hook after the A of each adapter: a lesson for one half sees the ranks of that half."""

    def hook(module, given, put_out):
        if not which:
            return put_out
        mask = torch.ones(len(which), put_out.shape[-1])
        for row, part in zip(mask, which, strict=True):
            if part:
                row[slice(RANK // 2) if part == SECOND else slice(RANK // 2, None)] = 0
        return put_out * mask.view(len(which), *[1] * (put_out.ndim - 2), -1)

    return hook


def fitted(model, kind: Fit, output, seed: int) -> LoraFile:
    """Train it, unless it is there."""
    if not output.exists():
        settings = Settings(
            steps=STEPS,
            batch_size=BATCH,
            learning_rate=RATE,
            seed=seed,
            adapter=AdapterSettings(RANK, float(RANK)),
            schedule="cosine",
        )
        with quiet():
            run(model, kind, settings, TrainingJob(output))
    return load_task(output, output.name)


def halves(module: LoraFile) -> tuple[LoraFile, LoraFile]:
    """The module's first and second half of the ranks, which add up to it."""
    half = RANK // 2
    cut = {
        "lora_A.weight": lambda each: (each[:half], each[half:]),
        "lora_B.weight": lambda each: (each[:, :half], each[:, half:]),
    }
    parts: list[dict[str, torch.Tensor]] = [{}, {}]
    for name, tensor in module.tensors.items():
        made = next((how(tensor) for ending, how in cut.items() if name.endswith(ending)), None)
        for part, each in zip(parts, made or (tensor, tensor), strict=True):
            part[name] = each.contiguous()
    return tuple(
        LoraFile(f"{number}-{module.name}", "task", f"{module.sha256}-{number}", {}, part)
        for number, part in enumerate(parts)
    )
