"""SalUn's mask, of rows and columns: what it is told by, what it holds still, what it refuses."""

import json

import merging
import pytest
import torch
from modular_safety_lora.host.denoiser import Denoiser
from modular_safety_lora.host.gradients import kept, recomputing
from modular_safety_lora.host.lending import lent
from modular_safety_lora.lab import zoo
from modular_safety_lora.merge import merge
from modular_safety_lora.training.adapter_settings import AdapterSettings
from modular_safety_lora.training.engine import saliency
from modular_safety_lora.training.engine.adapters import adapters_in
from modular_safety_lora.training.engine.job import TrainingJob
from modular_safety_lora.training.engine.loop import TrainingError
from modular_safety_lora.training.objectives import METHODS, Erasure
from modular_safety_lora.training.safety import train_safety
from modular_safety_lora.training.settings import Settings
from safetensors.torch import load_file

pytestmark = pytest.mark.usefixtures("one_thread", "no_chart")
SHARE = 0.25  # half of the rows, half of the columns
long = pytest.mark.long


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(saliency, "PASSES", 2)


def losses_of(denoiser, texts, latents, count: int = 2) -> list:
    """Losses of the network's output for a prompt, each at its own noise."""

    def loss(number: int) -> torch.Tensor:
        noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(number))
        sigma = denoiser.sampling.sigmas[[300 + 200 * number]].float()
        noisy = denoiser.noised(denoiser.latents_in(latents), noise, sigma)
        told = denoiser.conditions([texts], noisy)
        return denoiser.output(noisy, sigma, told).square().mean()

    return [lambda number=number: loss(number) for number in range(count)]


@pytest.mark.parametrize("method", ["esd-x", pytest.param("esd-u", marks=long)])
def test_it_is_told_by_the_gradients_of_the_weights_themselves(model, texts, method):
    """Linear layers, and convolutions, against what autograd gives for the weights."""
    denoiser, network = Denoiser(model), model.model.diffusion_model
    layers = METHODS[method].layers(network, denoiser.roles(texts["nude"]))
    losses = losses_of(denoiser, texts["nude"], torch.zeros(1, 4, 4, 4))
    expected = {}
    with adapters_in(network, layers, AdapterSettings(2, 2.0)) as adapters:
        found = saliency.saliency(adapters, losses)
        weights = [network.get_submodule(each).get_base_layer().weight for each in layers]
        for weight in weights:
            weight.requires_grad_()
        for loss in losses:
            for layer, slope in zip(layers, torch.autograd.grad(loss(), weights), strict=True):
                squares = slope.double().square().flatten(2).sum(dim=2) if slope.ndim > 2 else None
                squares = slope.double().square() if squares is None else squares
                rows, columns = expected.get(layer, (0.0, 0.0))
                expected[layer] = rows + squares.sum(dim=1), columns + squares.sum(dim=0)
        for weight in weights:
            weight.requires_grad_(requires_grad=False)
    assert found.keys() == expected.keys()
    for layer, both in found.items():
        for one, other in zip(both, expected[layer], strict=True):
            assert torch.allclose(one, other, rtol=1e-3, atol=1e-6 * other.max().item()), layer
    assert any(rows.any() for rows, _ in found.values())


@long
def test_it_is_the_same_where_blocks_write_over_their_inputs_and_are_computed_twice():
    texts, found = zoo.conditionings("Flux", 1)[0], []
    with lent(zoo.build("Flux", torch.float32)) as model:
        denoiser, network = Denoiser(model), model.model.diffusion_model
        layers = METHODS["esd-x"].layers(network, denoiser.roles(texts))
        losses = losses_of(denoiser, texts, zoo.latents("Flux", 1)[0], 1)
        with adapters_in(network, layers, AdapterSettings(2, 2.0)) as adapters:
            for way in (kept(True), recomputing(network)):
                with way:
                    found.append(saliency.saliency(adapters, losses))
    assert any(rows.any() for rows, _ in found[0].values())
    assert all(
        torch.allclose(one, other, rtol=1e-4)
        for layer in layers
        for one, other in zip(found[0][layer], found[1][layer], strict=True)
    )


def trained(model, texts, file, method="surrogate", job=None, **more):
    settings = Settings(steps=4, learning_rate=3e-3, adapter=AdapterSettings(4, 4.0))
    told = {"sampling_steps": 3, "ema": 0.5, "saliency": SHARE, **more}
    given = {"erasure": Erasure(method, **told), "retain": ["a cat"], "resolution": 32}
    given["surrogates"] = ["a red car in the rain"] if METHODS[method].surrogates else []
    return train_safety(model, texts, ["nude"], settings, job or TrainingJob(file), **given)


@pytest.mark.parametrize(
    "method", ["surrogate", *(pytest.param(each, marks=long) for each in ("sdd", "spm"))]
)
def test_no_more_than_the_share_of_each_layer_changes(model, texts, tmp_path, method):
    result = trained(model, texts, tmp_path / "safety.safetensors", method)
    merged, changed = merge.merge(model, [result.module]), 0
    tensors = result.module.tensors
    for key, up in tensors.items():
        if not key.endswith("lora_up.weight"):
            continue
        down = tensors[key.replace("lora_up", "lora_down")]
        rows, columns = up.flatten(1).any(dim=1), down.transpose(0, 1).flatten(1).any(dim=1)
        assert int(rows.sum()) <= round(len(rows) / 2), key
        assert int(columns.sum()) == round(len(columns) / 2) or not columns.any(), key
        changed += int(rows.sum())
    assert changed
    name = f"{merging.BLOCK}.attn2.to_k"
    moved = merging.effective(merged.model, name) != merging.base(model, name)
    assert moved.any(dim=1).sum() <= len(moved) / 2 and moved.any(dim=0).sum() <= moved.shape[1] / 2
    assert moved.any() and merged.report["retained_safety"] == pytest.approx(1.0, abs=1e-3)
    said = json.loads(result.module.metadata["msl.training"])
    assert said["erasure"]["saliency"] == SHARE


def test_the_rows_and_columns_that_change_are_the_most_salient(model, texts):
    denoiser, network = Denoiser(model), model.model.diffusion_model
    layers = METHODS["esd-x"].layers(network, denoiser.roles(texts["nude"]))
    losses = losses_of(denoiser, texts["nude"], torch.zeros(1, 4, 4, 4))
    with adapters_in(network, layers, AdapterSettings(2, 2.0)) as adapters:
        found = saliency.saliency(adapters, losses)
        masks = saliency.narrow(adapters, losses, SHARE)
        for layer, both in found.items():
            halves = ((f"saliency.{layer}.{half}.msl.weight") for half in ("lora_B", "lora_A"))
            for values, name in zip(both, halves, strict=True):
                on = masks[name].flatten().bool()
                assert int(on.sum()) == round(len(on) / 2)
                assert values[on].min() >= values[~on].max()
        adapters.parameters[name[len("saliency.") :]].square().sum().backward()
        slope = adapters.parameters[name[len("saliency.") :]].grad
        assert not slope[:, ~on].any() and slope[:, on].all()


@long
@pytest.mark.parametrize("method", ["surrogate", "sdd"])
def test_a_resumed_run_is_bit_identical_and_keeps_its_mask(
    model, texts, tmp_path, monkeypatch, method
):
    whole, parts = tmp_path / "whole.safetensors", tmp_path / "parts.safetensors"
    trained(model, texts, whole, method)
    for stop in (2, 4):
        job = TrainingJob(parts, resume=True, on_step=lambda p, stop=stop: p.step < stop)
        trained(model, texts, parts, method, job)
        monkeypatch.setattr(saliency, "PASSES", 1)  # it would choose others now
    expected, resumed = load_file(whole), load_file(parts)
    assert all(torch.equal(resumed[key], value) for key, value in expected.items())


def test_a_formula_has_no_gradient_and_a_gradient_of_nothing_tells_nothing(model, texts):
    with pytest.raises(ValueError, match="the method uce has no gradient"):
        Erasure("uce", saliency=0.5)
    with pytest.raises(ValueError, match="saliency is 0"):
        Erasure("esd-x", saliency=0.0)
    denoiser, network = Denoiser(model), model.model.diffusion_model
    layers = METHODS["esd-x"].layers(network, denoiser.roles(texts["nude"]))
    told = losses_of(denoiser, texts["nude"], torch.zeros(1, 4, 4, 4), 1)[0]
    with adapters_in(network, layers, AdapterSettings(2, 2.0)) as adapters:
        before = {name: value.detach().clone() for name, value in adapters.parameters.items()}
        for factor in (0.0, float("nan")):
            with pytest.raises(TrainingError, match="zero or not finite"):
                saliency.narrow(adapters, [lambda factor=factor: factor * told()], SHARE)
        assert all(torch.equal(adapters.parameters[name], each) for name, each in before.items())


def test_in_fp16_the_largest_scale_that_is_finite_is_taken_and_the_same_is_chosen(model, texts):
    denoiser, network = Denoiser(model), model.model.diffusion_model
    layers = METHODS["esd-x"].layers(network, denoiser.roles(texts["nude"]))
    told = losses_of(denoiser, texts["nude"], torch.zeros(1, 4, 4, 4), 1)[0]
    made = []

    def half() -> torch.Tensor:
        """Times 2^16 it is infinite."""
        made.append(told().half())
        return made[-1]

    def chosen(losses, **how) -> dict[str, torch.Tensor]:
        with adapters_in(network, layers, AdapterSettings(2, 2.0)) as adapters:
            return saliency.narrow(adapters, losses, SHARE, **how)

    plain, scaled = chosen([told]), chosen([half], scaled=True)
    assert len(made) == 2
    assert all(mask.equal(scaled[name]) for name, mask in plain.items())
