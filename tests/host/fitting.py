"""A task LoRA on layers that a safety module leaves alone, fitted to what the base computes.

No weight number sees it: it adds nothing against any safety change.
"""

from collections.abc import Sequence

import merging
import torch
from modular_safety_lora.function.inputs import EMPTY, Ask
from modular_safety_lora.function.measure import Arm
from modular_safety_lora.function.network import empty_of, half_made, outputs
from modular_safety_lora.host.denoiser import Denoiser
from modular_safety_lora.host.lending import lent
from modular_safety_lora.modules.files import LoraFile
from modular_safety_lora.training.adapter_settings import AdapterSettings
from modular_safety_lora.training.engine.adapters import adapters_in

RANK, RATE = 32, 5e-3


def task(
    base: Arm, safe: Arm, layers: Sequence[str], asks: Sequence[Ask], *, resolution: int, steps: int
) -> LoraFile:
    """What the safe model needs on some layers to compute what the base computes when asked."""
    texts = base.conditionings
    x, sigma = half_made(base.model, asks, texts, empty_of(base.model, resolution), lambda _: None)
    wanted = outputs(base.model, asks, texts, (x, sigma), lambda _: None)
    which = [place for place, ask in enumerate(asks) for _ in (*ask.prompts, EMPTY)]
    with torch.inference_mode(False):
        x, sigma, wanted = (each.clone() for each in (x[which], sigma[which], wanted))
    asked = [safe.conditionings[text] for ask in asks for text in (*ask.prompts, EMPTY)]
    # the host's Flux writes over what autograd keeps
    with lent(safe.model) as own, torch.autograd.graph.allow_mutation_on_saved_tensors():
        denoiser = Denoiser(own)
        conditions = denoiser.conditions(asked, x)
        network = denoiser.base.diffusion_model
        with adapters_in(network, list(layers), AdapterSettings(RANK, float(RANK))) as adapters:
            learned = torch.optim.Adam(adapters.parameters.values(), RATE)
            for _ in range(steps):
                learned.zero_grad()
                off = denoiser.output(x, sigma, conditions) - wanted
                off.square().mean().backward()
                learned.step()
            tensors = {key: value.detach().clone() for key, value in adapters.tensors().items()}
    return merging.task(tensors, "feed-forward.safetensors")
