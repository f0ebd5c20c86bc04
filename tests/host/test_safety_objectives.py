"""A safety LoRA's objectives against their papers: losses, layers, half-made pictures, teacher."""

import dataclasses
import functools

import comfy.sample
import comfy.samplers
import merging
import pytest
import torch
from comfy.k_diffusion.sampling import sample_euler
from layer_roles import named
from modular_safety_lora.host.denoiser import Denoiser
from modular_safety_lora.training.adapter_settings import AdapterSettings
from modular_safety_lora.training.engine.adapters import adapters_in
from modular_safety_lora.training.engine.ema import Ema
from modular_safety_lora.training.objectives import METHODS, Erasure
from modular_safety_lora.training.objectives.esd_x import esd_loss
from modular_safety_lora.training.objectives.half_denoised import half_denoised
from modular_safety_lora.training.objectives.method import Moment
from modular_safety_lora.training.objectives.retain import retain_loss
from modular_safety_lora.training.objectives.sdd import sdd_loss
from modular_safety_lora.training.objectives.surrogate import surrogate_loss

KINDS = ("eps", "v", "flow")


def fixed_batch(denoiser, texts, size: int = 2):
    generator = torch.Generator().manual_seed(1)
    noise = torch.randn(size, 4, 4, 4, generator=generator)
    sigma = denoiser.sampling.sigmas[torch.tensor([300, 700])[:size]].float()
    noisy = denoiser.noised(torch.randn(size, 4, 4, 4, generator=generator), noise, sigma)
    concept, null = (denoiser.conditions([texts[text]] * size, noisy) for text in ("nude", ""))
    return noisy, sigma, concept, null


@pytest.mark.parametrize("kind", KINDS)
def test_the_losses_are_the_papers_formulas(model, texts, kind):
    denoiser = Denoiser(merging.of_kind(model, kind))
    network = denoiser.base.diffusion_model
    noisy, sigma, concept, null = fixed_batch(denoiser, texts)
    other = denoiser.conditions([texts["a red car in the rain"]] * 2, noisy)
    surrogate = denoiser.conditions(
        [texts[text] for text in ("a red car in the rain", "a cat")], noisy
    )
    with torch.no_grad():
        base = {
            name: denoiser.output(noisy, sigma, cond)
            for name, cond in (("c", concept), ("null", null), ("r", other), ("s", surrogate))
        }
    with adapters_in(
        network, METHODS["esd-x"].layers(network, named(network)), AdapterSettings(2, 2.0)
    ) as adapters:
        direction = (base["c"] - base["null"]).square().mean().item()
        # at the start the student is the base: || (1 + eta) (y0(c) - y0(null)) ||^2
        for eta in (0.0, 1.0, 2.0):
            loss = esd_loss(denoiser, adapters, noisy, sigma, concept, null=null, eta=eta)
            assert loss.item() == pytest.approx((1 + eta) ** 2 * direction, rel=1e-3)
        assert sdd_loss(denoiser, noisy, sigma, concept, null).item() == pytest.approx(
            direction, rel=1e-3
        )
        assert retain_loss(denoiser, adapters, noisy, sigma, other).item() == 0.0
        about = (denoiser, adapters, noisy, sigma, concept)
        assert surrogate_loss(*about, surrogate=surrogate).item() == pytest.approx(
            (base["c"] - base["s"]).square().mean().item(), rel=1e-3
        )
        for value in adapters.parameters.values():
            value.data += 0.1 * torch.randn(value.shape, generator=torch.Generator().manual_seed(4))
        with torch.no_grad():
            student = {
                n: denoiser.output(noisy, sigma, cond)
                for n, cond in (("c", concept), ("null", null), ("r", other))
            }
        target = base["null"] - 1.5 * (base["c"] - base["null"])
        esd = esd_loss(denoiser, adapters, noisy, sigma, concept, null=null, eta=1.5)
        expected_esd = (student["c"] - target).square().mean()
        moment = Moment(noisy, sigma, concept, null)

        def of(method, surrogate, eta=1.5):
            told = dataclasses.replace(moment, surrogate=surrogate)
            return METHODS[method].loss(denoiser, adapters, told, Erasure(method, eta=eta))

        def gem(name):
            near, far = (
                (student["c"] - base[each]).double().square().mean(dim=(1, 2, 3)).sqrt()
                for each in (name, "c")
            )
            return (near - 0.2 * far).clamp(min=0.0).mean()

        expected = {
            "esd": (expected_esd, esd),
            "sdd": (
                (student["c"] - student["null"]).square().mean(),
                sdd_loss(denoiser, noisy, sigma, concept, null),
            ),
            "surrogate": (
                (student["c"] - base["s"]).square().mean(),
                surrogate_loss(*about, surrogate=surrogate),
            ),
            "spm": (
                (student["c"] - base["s"] + 1.5 * (base["c"] - base["s"])).square().mean(),
                of("spm", surrogate),
            ),
            "spm without a surrogate": (expected_esd, of("spm", None)),
            "gem": (gem("s"), of("gem", surrogate, 0.2)),
            "gem without a surrogate": (gem("null"), of("gem", None, 0.2)),
            "retain": (
                (student["r"] - base["r"]).square().mean(),
                retain_loss(denoiser, adapters, noisy, sigma, other),
            ),
        }
        for name, (formula, loss) in expected.items():
            assert loss.item() == pytest.approx(formula.item(), rel=1e-3), name
            assert loss.requires_grad


def test_each_method_trains_its_papers_layers(model):
    network = model.model.diffusion_model
    cross, rest = (
        METHODS["esd-x"].layers(network, named(network)),
        METHODS["esd-u"].layers(network, named(network)),
    )
    assert (
        cross
        == METHODS["sdd"].layers(network, named(network))
        == METHODS["surrogate"].layers(network, named(network))
        == METHODS["gem"].layers(network, named(network))
        and cross
        and all("attn2" in name for name in cross)
    )
    assert not set(cross) & set(rest) and not any(
        name.startswith(("time_embed", "out.")) for name in rest
    )
    everything = {
        n for n, m in network.named_modules() if isinstance(m, torch.nn.Linear | torch.nn.Conv2d)
    }
    blocks = {name for name in everything if ".transformer_blocks." in name}
    assert set(METHODS["spm"].layers(network, named(network))) == blocks and set(cross) < blocks
    left_out = everything - set(cross) - set(rest)
    assert left_out == {"time_embed.0", "time_embed.2", "out.2"}


@pytest.mark.parametrize("kind", KINDS)
def test_half_made_pictures_are_the_stock_samplers(model, texts, kind):
    """The same noise, steps and guidance through ComfyUI's Euler sampler, cut at the same step."""
    model = merging.of_kind(model, kind)
    denoiser = Denoiser(model)
    erasure = Erasure(sampling_steps=4, guidance=3.0)
    noise = torch.randn(1, 4, 4, 4, generator=torch.Generator().manual_seed(2))
    concept, null = (denoiser.conditions([texts[text]], noise) for text in ("nude", ""))
    sigmas = comfy.samplers.calculate_sigmas(denoiser.sampling, "normal", 4)
    seen = set()
    for seed in range(12):
        generator = torch.Generator().manual_seed(seed)
        made = half_denoised(denoiser, noise, concept, null, erasure, generator=generator)
        noisy, sigma = made.noisy, made.sigma
        stop = int((sigmas - sigma).abs().argmin())
        if stop in seen:
            continue
        seen.add(stop)
        sampler = comfy.samplers.KSAMPLER(functools.partial(euler, stop))
        stock = comfy.sample.sample_custom(
            model,
            noise,
            3.0,
            sampler,
            sigmas,
            texts["nude"],
            texts[""],
            torch.zeros_like(noise),
            disable_pbar=True,
            seed=1,
        )
        stock = denoiser.base.process_latent_in(stock)
        assert torch.allclose(noisy, stock, atol=1e-3, rtol=1e-3), f"stopped at {stop}"
    assert len(seen) >= 3


def euler(stop, wrap, x, sigmas, extra_args=None, **unused):
    """ComfyUI's own sample_euler over the first `stop` steps, not scaled back to sigma 0."""
    return (
        sample_euler(wrap, x, sigmas[: stop + 1], extra_args=extra_args, disable=True)
        if stop
        else x
    )


def test_the_teacher_is_the_moving_average(model):
    network = model.model.diffusion_model
    with adapters_in(
        network, METHODS["sdd"].layers(network, named(network))[:1], AdapterSettings(2, 2.0)
    ) as adapters:
        ema, name = Ema(adapters, 0.9), next(iter(adapters.parameters))
        start = adapters.parameters[name].detach().clone()
        adapters.parameters[name].data += 1.0
        ema.update()
        with ema.in_place():
            assert torch.allclose(adapters.parameters[name], start + 0.1)
        assert torch.equal(adapters.parameters[name], start + 1.0)
