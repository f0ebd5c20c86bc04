"""The zoo: every family builds, goes through the host's sampler, and follows its text."""

import comfy.model_detection
import comfy.model_management
import comfy.sample
import pytest
import torch
from modular_safety_lora.host.denoiser import Denoiser
from modular_safety_lora.host.lending import lent
from modular_safety_lora.lab import zoo
from modular_safety_lora.merge.on_model import left_on

# what runs in float32 too is in test_models.py
HELD = (torch.bfloat16, pytest.param(torch.float32, marks=pytest.mark.long))


@pytest.fixture(autouse=True)
def alone():
    """One thread: more only wait for each other in networks as small as these."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module", params=HELD, ids=lambda held: str(held).removeprefix("torch."))
def held(request):
    """What the weights are held in."""
    return request.param


@pytest.fixture(scope="module", params=zoo.TWINS)
def small(request, held):
    """(family, dtype, MODEL) of every family."""
    key = request.param
    yield zoo.TWINS[key], held, zoo.build(key, held)
    comfy.model_management.unload_all_models()


def test_a_small_model_is_of_the_class_that_the_host_finds_by_its_weights(small):
    family, held, model = small
    weights = model.model.diffusion_model.state_dict()
    assert type(model.model.model_config).__name__ == family.config
    found = comfy.model_detection.model_config_from_unet(weights, "")
    assert (type(found).__name__ if found else None) == family.found
    assert all(value.isfinite().all() for value in weights.values())
    assert held in {value.dtype for value in weights.values()} <= {held, torch.float32}


@pytest.mark.parametrize("guidance", [1.0, 5.0])
def test_the_stock_sampler_makes_a_picture_that_follows_the_text(small, guidance):
    family, _, model = small
    latent = zoo.latents(family.key, 1)[0]
    [[tokens, rest]], [[others, _]], negative = zoo.conditionings(family.key, 3)
    one, other = (
        zoo.sampled(model, family.key, [[[text, rest]], negative], latent, guidance=guidance)
        for text in (tokens, others)
    )
    assert one.shape == other.shape == latent.shape
    assert one.isfinite().all() and other.isfinite().all()
    assert (one - other).norm() > 1e-3 * one.norm()
    assert left_on(model.model) == []  # no family's own code is taken for another model's


def test_prompts_of_unlike_length_and_other_sizes_go_through_the_sampler(small):
    family, _, model = small
    latent = zoo.latents(family.key, 1, wide=True)[0]
    texts = [zoo.conditionings(family.key, 1, tokens=tokens)[0] for tokens in (5, 9)]
    lengths = [text[0][0].shape[1] for text in texts]
    assert lengths == ([family.text.fixed] * 2 if family.text.fixed else [5, 9])
    assert zoo.sampled(model, family.key, texts, latent, guidance=5.0).isfinite().all()


def test_held_in_half_it_is_the_function_of_its_values_in_float32(small):
    family, held, model = small
    exact = zoo.build(family.key, torch.float32, held)
    texts, latent = zoo.conditionings(family.key, 2), zoo.latents(family.key, 1)[0]
    pictures = (
        zoo.sampled(each, family.key, texts, latent, guidance=5.0) for each in (model, exact)
    )
    assert torch.equal(*pictures)


def test_gradients_reach_the_attention_where_the_host_has_any(small):
    family, _, model = small
    with lent(model) as own, torch.autograd.graph.allow_mutation_on_saved_tensors():
        denoiser = Denoiser(own)
        noisy = denoiser.latents_in(zoo.latents(family.key, 1)[0])
        conditions = denoiser.conditions(zoo.conditionings(family.key, 1), noisy)
        layer = next(
            module
            for name, module in denoiser.base.diffusion_model.named_modules()
            if "att" in name and isinstance(module, torch.nn.Linear)
        )
        layer.weight.requires_grad_(True)
        output = denoiser.output(noisy, denoiser.sampling.sigmas[-2:-1].float(), conditions)
        if not family.trains:
            with pytest.raises(RuntimeError, match="no autograd formula"):
                output.square().mean().backward()
        else:
            output.square().mean().backward()
            assert layer.weight.grad.isfinite().all() and layer.weight.grad.abs().max() > 0
        layer.weight.requires_grad_(False).grad = None
