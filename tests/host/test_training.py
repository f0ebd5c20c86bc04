"""Adapters in the real model, and its own parametrisation.

They are held against the papers' formulas and the stock loader.
"""

import comfy.lora
import comfy.model_management
import comfy.sd
import merging
import pytest
import torch
from layer_roles import chosen
from modular_safety_lora.host.denoiser import Denoiser
from modular_safety_lora.host.names import in_ecosystem_names
from modular_safety_lora.training.adapter_settings import AdapterSettings
from modular_safety_lora.training.engine.adapters import adapters_in

KINDS = ("eps", "v", "flow")


@pytest.fixture(scope="module")
def conditioning(checkpoint):
    clip = checkpoint[1]
    return clip.encode_from_tokens_scheduled(clip.tokenize("a picture"))


def batch(denoiser, size: int = 2, seed: int = 1):
    """Clean latents, noise, noise levels and x_t of a fixed batch of 32x32 pixels."""
    generator = torch.Generator().manual_seed(seed)
    clean = denoiser.latents_in(torch.randn(size, 4, 4, 4, generator=generator))
    noise = torch.randn(clean.shape, generator=generator)
    sigma = denoiser.sigmas(size, generator)
    return clean, noise, sigma, denoiser.noised(clean, noise, sigma)


@pytest.mark.parametrize("kind", KINDS)
def test_the_target_is_the_papers(model, kind):
    denoiser = Denoiser(merging.of_kind(model, kind))
    clean, noise, sigma, noisy = batch(denoiser, 8)
    level = sigma.reshape(-1, 1, 1, 1)
    alpha = 1 / (1 + level**2).sqrt()  # the variance-preserving x is alpha * noisy
    expected = {
        "eps": noise,
        "v": alpha * noise - alpha * level * clean,
        "flow": noise - clean,
    }[kind]
    scaled = {"flow": (1 - level) * clean + level * noise}.get(kind, clean + level * noise)
    assert torch.allclose(noisy, scaled, atol=1e-5, rtol=1e-5)
    assert torch.allclose(denoiser.target(clean, noisy, sigma), expected, atol=2e-4, rtol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_the_output_is_the_networks_own(model, conditioning, kind):
    denoiser = Denoiser(merging.of_kind(model, kind))
    _, _, sigma, noisy = batch(denoiser)
    conditions = denoiser.conditions([conditioning] * len(noisy), noisy)
    seen = []
    hook = denoiser.base.diffusion_model.register_forward_hook(
        lambda module, args, out: seen.append(out)
    )
    try:
        with torch.no_grad():
            output = denoiser.output(noisy, sigma, conditions)
    finally:
        hook.remove()
    assert merging.relative_error(output, seen[0]) < 1e-4


@pytest.mark.parametrize(
    "targets", ["attention", "cross-attention", "attention+mlp", "all", "to_v"]
)
def test_the_first_output_is_the_bases_and_gradients_reach_exactly_the_adapters(
    model, conditioning, targets
):
    denoiser = Denoiser(model)
    network = denoiser.base.diffusion_model
    clean, _, sigma, noisy = batch(denoiser)
    conditions = denoiser.conditions([conditioning] * len(noisy), noisy)
    with torch.no_grad():
        before = denoiser.output(noisy, sigma, conditions)
    layers = chosen(network, targets)
    with adapters_in(network, layers, AdapterSettings(rank=2, alpha=2)) as adapters:
        output = denoiser.output(noisy, sigma, conditions)
        assert torch.equal(output, before)
        (output - denoiser.target(clean, noisy, sigma)).square().mean().backward()
        with_gradient = {
            name for name, value in network.named_parameters() if value.grad is not None
        }
        assert with_gradient == {
            f"{layer}.lora_{half}.msl.weight" for layer in layers for half in "AB"
        }
        assert with_gradient == {
            name for name, value in network.named_parameters() if value.requires_grad
        }
        assert all(
            adapters.parameters[name].grad.abs().max() > 0
            for name in with_gradient
            if ".lora_B." in name
        )


def digest(network) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in network.state_dict().items()}


def test_the_borrowed_model_is_given_back_as_it_was_even_after_an_error(model):
    network = model.model.diffusion_model
    weights, kinds = (
        digest(network),
        {name: type(module) for name, module in network.named_modules()},
    )
    flags, attributes = (
        {name: each.requires_grad for name, each in network.named_parameters()},
        set(vars(network)),
    )
    with (
        pytest.raises(KeyboardInterrupt),
        adapters_in(network, chosen(network, "all"), AdapterSettings()),
    ):
        raise KeyboardInterrupt
    with (
        pytest.raises(ValueError),
        adapters_in(network, chosen(network, "all"), AdapterSettings(rank=0)),
    ):
        pytest.fail("a rank of 0 can't be")
    with (
        pytest.raises(ValueError),
        adapters_in(network, ["time_embed.0", "time_embed.1"], AdapterSettings()),
    ):
        pytest.fail("PEFT can't adapt an activation: it stops after the first layer")
    after = network.state_dict()
    assert after.keys() == weights.keys() and all(
        torch.equal(after[name], value) for name, value in weights.items()
    )
    assert {name: type(module) for name, module in network.named_modules()} == kinds
    assert {name: each.requires_grad for name, each in network.named_parameters()} == flags
    assert set(vars(network)) == attributes


@pytest.mark.parametrize(
    "settings",
    [
        AdapterSettings(4, 2.0),
        AdapterSettings(4, 8.0, use_rslora=True),
        AdapterSettings(4, 4.0, use_dora=True),
    ],
)
def test_what_was_trained_is_what_the_stock_loader_gives(model, conditioning, settings):
    denoiser = Denoiser(model)
    network = denoiser.base.diffusion_model
    _, _, sigma, noisy = batch(denoiser)
    conditions = denoiser.conditions([conditioning] * len(noisy), noisy)
    with adapters_in(network, chosen(network, "all"), settings) as adapters:
        generator = torch.Generator().manual_seed(3)
        for value in adapters.parameters.values():
            value.data += 0.05 * torch.randn(value.shape, generator=generator)
        with torch.no_grad():
            trained = denoiser.output(noisy, sigma, conditions)
            with adapters.switched_off():
                base = denoiser.output(noisy, sigma, conditions)
        tensors = in_ecosystem_names(adapters.tensors(), model.model.model_config)
    loaded, _ = comfy.sd.load_lora_for_models(model, None, tensors, 1.0, 1.0)
    with torch.no_grad():
        stock = Denoiser(loaded).output(noisy, sigma, conditions)
    assert merging.relative_error(base, trained) > 1e-2
    error = merging.relative_error(stock, trained)
    # the host stores fp16 weights
    assert error < 1e-3 * merging.relative_error(base, trained) + 2e-3, error


@pytest.mark.parametrize("kind", KINDS)
def test_one_fixed_batch_overfits(model, conditioning, kind):
    denoiser = Denoiser(merging.of_kind(model, kind))
    network = denoiser.base.diffusion_model
    clean, _, sigma, noisy = batch(denoiser, 1)
    conditions, target = (
        denoiser.conditions([conditioning] * len(noisy), noisy),
        denoiser.target(clean, noisy, sigma),
    )
    losses = []
    with adapters_in(network, chosen(network, "all"), AdapterSettings(8, 8.0)) as adapters:
        optimizer = torch.optim.AdamW(adapters.parameters.values(), lr=2e-3, weight_decay=0.0)
        for _ in range(200):
            loss = (denoiser.output(noisy, sigma, conditions) - target).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
            if losses[-1] < 0.1 * losses[0]:
                break
    assert losses[-1] < 0.1 * losses[0], (
        f"{losses[0]:.3f} -> {losses[-1]:.3f} in {len(losses)} steps"
    )
