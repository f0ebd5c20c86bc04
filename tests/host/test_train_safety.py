"""Training a safety LoRA: the concept goes, runs resume, and the file is sealed."""

import json

import merging
import pytest
import torch
from modular_safety_lora.host.denoiser import Denoiser
from modular_safety_lora.host.prompts import concepts_of, prompts_of
from modular_safety_lora.merge import merge
from modular_safety_lora.modules import files
from modular_safety_lora.training.adapter_settings import AdapterSettings
from modular_safety_lora.training.engine.job import TrainingJob
from modular_safety_lora.training.objectives import METHODS, Erasure
from modular_safety_lora.training.objectives.half_denoised import half_denoised
from modular_safety_lora.training.safety import train_safety
from modular_safety_lora.training.settings import Settings
from safetensors.torch import load_file

pytestmark = pytest.mark.usefixtures("no_chart")
FAST = {"learning_rate": 3e-3, "adapter": AdapterSettings(4, 4.0)}


@pytest.mark.parametrize(("method", "kind"), [("esd-x", "eps"), ("esd-u", "flow"), ("sdd", "v")])
def test_training_takes_the_concept_away(model, texts, tmp_path, method, kind):
    """Concept gain <d, d0> / |d0|^2 with d = y(c) - y(null): 1 for the base, lower once erased."""
    model, output = merging.of_kind(model, kind), tmp_path / "safety.safetensors"
    before = {
        name: value.detach().clone()
        for name, value in model.model.diffusion_model.state_dict().items()
    }
    settings = Settings(steps=12, learning_rate=1e-2, adapter=AdapterSettings(4, 4.0))
    erasure = Erasure(method, sampling_steps=3, ema=0.8)
    result = train_safety(
        model,
        texts,
        ["nude", "naked person"],
        settings,
        TrainingJob(output),
        erasure=erasure,
        resolution=32,
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
    assert json.loads(module.metadata["msl.training"])["steps_done"] == progress.step == 12
    assert gain(merge.merge(model, [module]).model, model, texts, erasure) < 0.9


@torch.no_grad()
def gain(merged, base, texts, erasure) -> float:
    """Over pictures of the concept that the base half-made from noise it was not trained on."""
    cases, dots, squares = [], 0.0, 0.0
    denoiser = Denoiser(base)
    for seed in range(100, 104):
        generator = torch.Generator().manual_seed(seed)
        noise = torch.randn(1, 4, 4, 4, generator=generator)
        concept, null = (denoiser.conditions([texts[text]], noise) for text in ("nude", ""))
        made = half_denoised(denoiser, noise, concept, null, erasure, generator=generator)
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
        more = {"erasure": erasure, "retain": retain, "resolution": 32}
        losses.append(
            train_safety(
                model, texts, ["nude"], settings, TrainingJob(output), **more
            ).progress.losses
        )
    assert losses[0][0]["erase"] == losses[1][0]["erase"] and losses[1][0]["retain"] == 0.0, (
        "at the start nothing has moved"
    )
    assert losses[1][1]["retain"] > 0.0 and "retain" not in losses[0][1]


def test_what_is_retained_weighs_as_told(model, texts, tmp_path):
    def second(weight: float) -> dict[str, float]:
        """The losses of the second step, which the weight of the first can't have moved."""
        erasure = Erasure(sampling_steps=3, retain_weight=weight)
        job, settings = TrainingJob(tmp_path / f"{weight}.safetensors"), Settings(steps=2, **FAST)
        more = {"erasure": erasure, "retain": ["a cat"], "resolution": 32}
        return train_safety(model, texts, ["nude"], settings, job, **more).progress.losses[1]

    plain, heavy = second(1.0), second(3.0)
    assert heavy["erase"] == plain["erase"]
    assert heavy["retain"] == pytest.approx(3 * plain["retain"], rel=1e-5) and plain["retain"] > 0


def test_a_pattern_leaves_those_layers_alone_that_do_not_have_it(model, texts, tmp_path):
    def layers(pattern: str) -> set[str]:
        output = tmp_path / f"{len(pattern)}.safetensors"
        erasure = Erasure(sampling_steps=2, layer_pattern=pattern)
        more = {"erasure": erasure, "resolution": 32}
        train_safety(model, texts, ["nude"], Settings(steps=1, **FAST), TrainingJob(output), **more)
        return {key.rsplit(".", 2)[0] for key in load_file(output)}

    every, some = layers(""), layers(r"to_[kv]$")
    assert some == {name for name in every if name.endswith(("to_k", "to_v"))}
    assert some and some != every
    with pytest.raises(ValueError, match="layer_pattern is 'txt_', and no layer of this method"):
        layers("txt_")
    with pytest.raises(ValueError, match=r"layer_pattern is '\('; it is no regular"):
        Erasure(layer_pattern="(")
    with pytest.raises(ValueError, match="the method uce takes all layers"):
        erasure, job = Erasure("uce", layer_pattern="to_k"), TrainingJob(tmp_path / "c.safetensors")
        train_safety(model, texts, ["nude"], Settings(), job, erasure=erasure)


@pytest.mark.parametrize("method", ["esd-x", "sdd", "surrogate"])
def test_a_resumed_run_is_bit_identical(model, texts, tmp_path, method):
    whole, parts = tmp_path / "whole.safetensors", tmp_path / "parts.safetensors"
    settings, erasure = Settings(steps=4, **FAST), Erasure(method, sampling_steps=3, ema=0.5)
    more = {"erasure": erasure, "resolution": 32, "surrogates": ["a cat", "a dog"]}
    train_safety(model, texts, ["nude", "naked person"], settings, TrainingJob(whole), **more)
    for stop in (1, 3, 4):
        job = TrainingJob(parts, resume=True, on_step=lambda p, stop=stop: p.step < stop)
        train_safety(model, texts, ["nude", "naked person"], settings, job, **more)
    expected, resumed = load_file(whole), load_file(parts)
    assert expected.keys() == resumed.keys() and all(
        torch.equal(resumed[key], expected[key]) for key in expected
    )


def test_prompts_and_bad_settings(model, texts, tmp_path):
    assert prompts_of(" nudity, nude ,,", ["nude", "naked"]) == ["nudity", "nude", "naked"]
    with pytest.raises(ValueError, match=f"must be one of {', '.join(METHODS)}"):
        Erasure("uc")
    with pytest.raises(ValueError, match="no concept prompt"):
        train_safety(model, texts, [], Settings(), TrainingJob(tmp_path / "x.safetensors"))
