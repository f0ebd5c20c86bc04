"""An attacker that leaves the network alone: a LoRA on the text encoder that says it otherwise.

|| y_safe(x, text'(c)) - y_base(x, text(c)) ||^2
"""

from collections.abc import Sequence

import torch

from ...host.denoiser import Denoiser
from ...host.gradients import kept
from ...modules.files import LoraFile, load_task, save_module
from ...training.adapter_settings import AdapterSettings
from ...training.engine.adapters import adapters_in
from ..world.emergence import Model
from .fitting import Lesson

STEPS, BATCH, RANK, RATE = 40, 2, 16, 3e-3
LAYERS = (8, 9, 10, 11)
PARTS = ("mlp.fc1", "mlp.fc2", "self_attn.v_proj", "self_attn.out_proj")
PREFIX = "text_encoders.clip_l.transformer."


def fitted(base: Model, safe, lessons: Sequence[Lesson], output, seed: int) -> LoraFile:
    """Train it, unless it is there."""
    if not output.exists():
        tensors = _trained(base, safe, lessons, seed)
        save_module(output, tensors, {"msl.base": "SD3"}, "task")
    return load_task(output, output.name)


def _trained(base: Model, safe, lessons: Sequence[Lesson], seed: int) -> dict[str, torch.Tensor]:
    denoiser = Denoiser(safe)
    network = base.clip.cond_stage_model.clip_l.transformer
    layers = [f"text_model.encoder.layers.{layer}.{part}" for layer in LAYERS for part in PARTS]
    draw = torch.Generator().manual_seed(seed)
    with adapters_in(network, layers, AdapterSettings(RANK, float(RANK)), seed) as adapters:
        steps = torch.optim.AdamW(adapters.parameters.values(), lr=RATE)
        for _ in range(STEPS):
            chosen = torch.randint(len(lessons), (BATCH,), generator=draw).tolist()
            some = [lessons[number] for number in chosen]
            x, sigma, wanted = (
                torch.stack([getattr(each, what) for each in some])
                for what in ("x", "sigma", "wanted")
            )
            with kept(True):  # CLIP writes over what gradients need
                output = denoiser.output(x, sigma, _conditions(base, denoiser, some, x))
                loss = (output - wanted).square().mean()
                steps.zero_grad()
                loss.backward()
            steps.step()
        return {
            f"{PREFIX}{name.removeprefix('diffusion_model.')}": value
            for name, value in adapters.tensors().items()
        }


def _conditions(base: Model, denoiser: Denoiser, some: Sequence[Lesson], x: torch.Tensor):
    """The prompts as the text encoder gives them now, with gradients to its adapters."""
    given = []
    for each in some:
        tokens, pooled = base.clip.encode_from_tokens(
            base.clip.tokenize(each.prompt), return_pooled=True
        )
        given.append([[tokens, {"pooled_output": pooled}]])
    return denoiser.conditions(given, x)
