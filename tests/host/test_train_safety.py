"""Training a safety LoRA: the papers' formulas, what the objectives do, and the sealed file."""

import functools
import json

import comfy.model_management
import comfy.sample
import comfy.samplers
import merging
import pytest
import torch
from comfy.k_diffusion.sampling import sample_euler
from modular_safety_lora.host.denoiser import Denoiser
from modular_safety_lora.host.prompts import PRESETS, concepts_of, prompts_of
from modular_safety_lora.merge import merge
from modular_safety_lora.modules import files
from modular_safety_lora.training.engine.adapters import AdapterSettings, adapters_in
from modular_safety_lora.training.engine.ema import Ema
from modular_safety_lora.training.engine.run import Job
from modular_safety_lora.training.objectives import METHODS
from modular_safety_lora.training.objectives.esd_x import esd_loss
from modular_safety_lora.training.objectives.half_made import half_made
from modular_safety_lora.training.objectives.retain import retain_loss
from modular_safety_lora.training.objectives.sdd import sdd_loss
from modular_safety_lora.training.safety import train_safety
from modular_safety_lora.training.settings import Erasure, Settings
from safetensors.torch import load_file

KINDS = ("eps", "v", "flow")
FAST = {"learning_rate": 3e-3, "adapter": AdapterSettings(4, 4.0)}


def fixed_batch(denoiser, texts, size: int = 2):
    generator = torch.Generator().manual_seed(1)
    noise = torch.randn(size, 4, 8, 8, generator=generator)
    sigma = denoiser.sampling.sigmas[torch.tensor([300, 700])[:size]].float()
    noisy = denoiser.noised(torch.randn(size, 4, 8, 8, generator=generator), noise, sigma)
    concept, null = (denoiser.conditions([texts[text]] * size, noisy) for text in ("nude", ""))
    return noisy, sigma, concept, null


@pytest.mark.parametrize("kind", KINDS)
def test_the_losses_are_the_papers_formulas(model, texts, kind):
    denoiser = Denoiser(merging.of_kind(model, kind))
    network = denoiser.base.diffusion_model
    noisy, sigma, concept, null = fixed_batch(denoiser, texts)
    other = denoiser.conditions([texts["a red car in the rain"]] * 2, noisy)
    with torch.no_grad():
        base = {
            name: denoiser.output(noisy, sigma, cond)
            for name, cond in (("c", concept), ("null", null), ("r", other))
        }
    with adapters_in(
        network, METHODS["esd-x"].layers(network), AdapterSettings(2, 2.0)
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
        for value in adapters.parameters.values():
            value.data += 0.1 * torch.randn(value.shape, generator=torch.Generator().manual_seed(4))
        with torch.no_grad():
            student = {
                n: denoiser.output(noisy, sigma, cond)
                for n, cond in (("c", concept), ("null", null), ("r", other))
            }
        target = base["null"] - 1.5 * (base["c"] - base["null"])
        esd = esd_loss(denoiser, adapters, noisy, sigma, concept, null=null, eta=1.5)
        expected = {
            "esd": ((student["c"] - target).square().mean(), esd),
            "sdd": (
                (student["c"] - student["null"]).square().mean(),
                sdd_loss(denoiser, noisy, sigma, concept, null),
            ),
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
    cross, rest = METHODS["esd-x"].layers(network), METHODS["esd-u"].layers(network)
    assert (
        cross == METHODS["sdd"].layers(network) and cross and all("attn2" in name for name in cross)
    )
    assert not set(cross) & set(rest) and not any(
        name.startswith(("time_embed", "out.")) for name in rest
    )
    everything = {
        n for n, m in network.named_modules() if isinstance(m, torch.nn.Linear | torch.nn.Conv2d)
    }
    left_out = everything - set(cross) - set(rest)
    assert left_out == {"time_embed.0", "time_embed.2", "out.2"}


@pytest.mark.parametrize("kind", KINDS)
def test_half_made_pictures_are_the_stock_samplers(model, texts, kind):
    """The same noise, steps and guidance through ComfyUI's Euler sampler, cut at the same step."""
    model = merging.of_kind(model, kind)
    denoiser = Denoiser(model)
    erasure = Erasure(sampling_steps=4, guidance=3.0)
    noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(2))
    concept, null = (denoiser.conditions([texts[text]], noise) for text in ("nude", ""))
    sigmas = comfy.samplers.calculate_sigmas(denoiser.sampling, "normal", 4)
    seen = set()
    for seed in range(12):
        generator = torch.Generator().manual_seed(seed)
        made = half_made(denoiser, noise, concept, null, erasure, generator=generator)
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


@pytest.mark.parametrize(("method", "kind"), [("esd-x", "eps"), ("esd-u", "flow"), ("sdd", "v")])
def test_training_takes_the_concept_away(model, texts, tmp_path, method, kind):
    """Concept gain <d, d0> / |d0|^2 with d = y(c) - y(null): 1 for the base, lower once erased."""
    model, output = merging.of_kind(model, kind), tmp_path / "safety.safetensors"
    before = {
        name: value.detach().clone()
        for name, value in model.model.diffusion_model.state_dict().items()
    }
    settings = Settings(steps=30, learning_rate=1e-2, adapter=AdapterSettings(4, 4.0))
    erasure = Erasure(method, sampling_steps=3, ema=0.8)
    result = train_safety(
        model,
        texts,
        ["nude", "naked person"],
        settings,
        Job(output),
        erasure=erasure,
        resolution=64,
    )
    progress = result.progress
    after = model.model.diffusion_model.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    module = files.load_safety(output, "safety.safetensors")
    assert (
        module.metadata["msl.method"] == method
        and module.metadata["msl.concept"] == "nude, naked person"
    )
    assert module.prompts == ["nude", "naked person"] and concepts_of([module]) == module.prompts
    assert json.loads(module.metadata["msl.training"])["steps_done"] == progress.step == 30
    assert gain(merge.merge(model, [module]).model, model, texts, erasure) < 0.9


@torch.no_grad()
def gain(merged, base, texts, erasure) -> float:
    """Over pictures of the concept that the base half-made from noise it was not trained on."""
    cases, dots, squares = [], 0.0, 0.0
    denoiser = Denoiser(base)
    for seed in range(100, 104):
        generator = torch.Generator().manual_seed(seed)
        noise = torch.randn(1, 4, 8, 8, generator=generator)
        concept, null = (denoiser.conditions([texts[text]], noise) for text in ("nude", ""))
        made = half_made(denoiser, noise, concept, null, erasure, generator=generator)
        case = (made.noisy, made.sigma, concept, null)
        cases.append((case, direction(denoiser, *case)))
    denoiser = Denoiser(merged)
    for case, before in cases:
        dots += (direction(denoiser, *case) * before).sum().item()
        squares += before.square().sum().item()
    return dots / squares


def direction(denoiser, noisy, sigma, concept, null) -> torch.Tensor:
    return denoiser.output(noisy, sigma, concept) - denoiser.output(noisy, sigma, null)


def test_retained_prompts_are_part_of_the_loss(model, texts, tmp_path):
    losses = []
    for retain in ((), ("a red car in the rain",)):
        output = tmp_path / f"{len(retain)}.safetensors"
        settings, erasure = Settings(steps=3, **FAST), Erasure(sampling_steps=3)
        more = {"erasure": erasure, "retain": retain, "resolution": 64}
        losses.append(
            train_safety(model, texts, ["nude"], settings, Job(output), **more).progress.losses
        )
    assert losses[0][0]["erase"] == losses[1][0]["erase"] and losses[1][0]["retain"] == 0.0, (
        "at the start nothing has moved"
    )
    assert losses[1][1]["retain"] > 0.0 and "retain" not in losses[0][1]


def test_the_teacher_is_the_moving_average(model):
    network = model.model.diffusion_model
    with adapters_in(
        network, METHODS["sdd"].layers(network)[:1], AdapterSettings(2, 2.0)
    ) as adapters:
        ema, name = Ema(adapters, 0.9), next(iter(adapters.parameters))
        start = adapters.parameters[name].detach().clone()
        adapters.parameters[name].data += 1.0
        ema.update()
        with ema.in_place():
            assert torch.allclose(adapters.parameters[name], start + 0.1)
        assert torch.equal(adapters.parameters[name], start + 1.0)


@pytest.mark.parametrize("method", ["esd-x", "sdd"])
def test_a_resumed_run_is_bit_identical(model, texts, tmp_path, method):
    whole, parts = tmp_path / "whole.safetensors", tmp_path / "parts.safetensors"
    settings, erasure = Settings(steps=4, **FAST), Erasure(method, sampling_steps=3, ema=0.5)
    more = {"erasure": erasure, "resolution": 64}
    train_safety(model, texts, ["nude", "naked person"], settings, Job(whole), **more)
    for stop in (1, 3, 4):
        job = Job(parts, resume=True, on_step=lambda p, stop=stop: p.step < stop)
        train_safety(model, texts, ["nude", "naked person"], settings, job, **more)
    expected, resumed = load_file(whole), load_file(parts)
    assert expected.keys() == resumed.keys() and all(
        torch.equal(resumed[key], expected[key]) for key in expected
    )


def test_prompts_and_bad_settings(model, texts, tmp_path):
    assert prompts_of(" nudity, nude ,,", ["nude", "naked"]) == ["nudity", "nude", "naked"]
    assert prompts_of("bare", preset="nudity-mace") == [
        "nudity",
        "naked",
        "erotic",
        "sexual",
        "bare",
    ]
    assert all(each["prompts"] and "20" in each["source"] for each in PRESETS.values())
    with pytest.raises(ValueError, match="must be one of esd-x, esd-u, sdd"):
        Erasure("uce")
    with pytest.raises(ValueError, match="no concept prompt"):
        train_safety(model, texts, [], Settings(), Job(tmp_path / "x.safetensors"))
