"""Models of the zoo asked what they compute: prompts without a text encoder, and arms."""

import contextlib
from collections.abc import Iterator, Sequence

import comfy.model_management
import comfy.sample
import comfy.samplers
import comfy.sd
import torch
from layer_roles import chosen
from modular_safety_lora.function.inputs import EMPTY, Ask, Moments, short_form
from modular_safety_lora.function.measure import Arm, Reference, reference
from modular_safety_lora.function.texts import Text
from modular_safety_lora.host.weights import loaded_weight
from modular_safety_lora.lab import zoo

PROMPTS = ("one", "another")
MOMENTS = Moments((0.9, 0.7), (1, 2))


def asked(pictures: int = 2) -> list[Ask]:
    return short_form(MOMENTS, PROMPTS, pictures)


def texts_of(family: str) -> dict[str, Text]:
    names = (*PROMPTS, EMPTY)
    drawn = zoo.conditionings(family, len(names))
    return {name: Text(each, name) for name, each in zip(names, drawn, strict=True)}


def safety_lora(model, family: str, size: float = 0.3) -> dict[str, torch.Tensor]:
    """A seeded LoRA of rank 4 on all attention, of that share of the weights."""
    generator, tensors = torch.Generator().manual_seed(1), {}
    for layer in chosen(model.model.diffusion_model, "attention", family):
        w0 = loaded_weight(model, f"diffusion_model.{layer}.weight").float()
        up, down = (
            torch.randn(*shape, generator=generator) for shape in ((len(w0), 4), (4, w0.shape[1]))
        )
        up *= size * w0.norm() / (up @ down).norm()
        tensors |= {f"diffusion_model.{layer}.lora_A.weight": down}
        tensors |= {f"diffusion_model.{layer}.lora_B.weight": up}
    return tensors


def with_lora(model, tensors, *strengths: float):
    """A clone by the stock loader, once for each strength."""
    for strength in strengths:
        model = comfy.sd.load_lora_for_models(model, None, dict(tensors), strength, 0.0)[0]
    return model


def arms(model, family: str, tensors) -> tuple[Arm, Arm]:
    """The base, and the base with the safety change alone."""
    texts = texts_of(family)
    return Arm(model, texts), Arm(with_lora(model, tensors, 1.0), texts)


def reference_of(base: Arm, safe: Arm, family: str, asks: Sequence[Ask]) -> Reference:
    side = zoo.TWINS[family].side
    return reference(base, safe, asks, resolution=side, identity=None)


def by_the_stock_sampler(
    model, texts: Sequence[list], x: torch.Tensor, sigmas: torch.Tensor, guidance: float = 1.0
) -> torch.Tensor:
    """Where the stock Euler sampler gets to from x (1, C, ...) at the first sigma.

    With 0 as the second it is the picture that the model sees behind x.
    """
    sampling, space = model.get_model_object("model_sampling"), model.model
    one, zero = torch.ones_like(x), torch.zeros_like(x)
    guider = comfy.samplers.CFGGuider(model)
    guider.set_conds(*texts)
    guider.set_cfg(guidance)
    sampler = comfy.samplers.sampler_object("euler")
    most = sampler.max_denoise(_Wrapped(model), sigmas)
    noise = x / sampling.noise_scaling(sigmas[:1], one, zero, most)
    found = guider.sample(noise, zero, sampler, sigmas, disable_pbar=True, seed=1)
    found = space.process_latent_in(found)
    return found / sampling.inverse_noise_scaling(sigmas[-1:], one)


class _Wrapped:
    """What the host's sampler asks whether the first sigma is the largest there is."""

    def __init__(self, model):
        self.inner_model = model.model


def loaded_off() -> None:
    comfy.model_management.unload_all_models()


@contextlib.contextmanager
def memory(share: float) -> Iterator[None]:
    """A machine that takes this share of a model into memory, and brings the rest as it is used.

    The host has such numbers for graphics cards alone; they are given to it here.
    """
    own = comfy.model_management.LoadedModel.model_load

    def load(self, lowvram_model_memory=0, force_patch_weights=False):
        more = share * self.model.model_size() - self.model_loaded_memory()
        return own(self, max(0.1, more), force_patch_weights)

    comfy.model_management.LoadedModel.model_load = load
    try:
        yield
    finally:
        comfy.model_management.LoadedModel.model_load = own
        loaded_off()
