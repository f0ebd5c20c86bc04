"""Retained safety in the weights that compute, in every quantised format, however they are held."""

import pytest
import torch
from comfy.utils import get_attr
from modular_safety_lora.host.weights import loaded_weight
from modular_safety_lora.lab import zoo
from modular_safety_lora.lab.zoo.quantised import FORMATS, SCALED, quantised
from modular_safety_lora.lab.zoo.retained_weights import (
    kept,
    load,
    module_for,
    quantised_layers,
    retained,
)
from modular_safety_lora.merge import fasten, rounding
from modular_safety_lora.merge.merge import merge
from modular_safety_lora.merge.on_model import KEY
from modular_safety_lora.modules.errors import SafetyError

pytestmark = pytest.mark.usefixtures("unloaded")


@pytest.mark.parametrize("name", [*FORMATS, SCALED])
@pytest.mark.parametrize("family", zoo.UNLIKE)
def test_what_computes_keeps_its_safety_in_memory_and_streaming(family, name):
    model = quantised(family, name)
    module, changes = module_for(model, quantised_layers(model))
    before = {key: loaded_weight(model, key) for key in changes}
    merged = merge(model, [module])
    held = merged.model.get_attachment(KEY)
    [(_, found)] = merged.report["rounding"].items()
    assert found["layers"] == len(changes) > 20 and found["before"] == pytest.approx(1.0, abs=1e-3)
    if name == "nvfp4":
        assert found["after"] < rounding.ENOUGH and held.at_use == changes.keys()
    assert min(kept(merged.model, before, changes).values()) > rounding.ENOUGH
    assert all(torch.equal(loaded_weight(model, key), value) for key, value in before.items())
    assert not any(getattr(each, "weight_function", None) for each in model.model.modules())


@pytest.mark.parametrize("name", ["nvfp4", "float8_e4m3fn"])
def test_a_merge_says_the_same_while_another_is_loaded(name):
    """The weights in memory are then another merge's, and not those to measure against."""
    model = quantised("Flux", name)
    module, _ = module_for(model, quantised_layers(model))
    first = merge(model, [module])
    load(first.model, streaming=False)
    again = merge(model, [module])
    assert again.report["rounding"] == first.report["rounding"]
    assert again.model.get_attachment(KEY).at_use == first.model.get_attachment(KEY).at_use


def test_without_it_four_bits_lose_a_fifth_of_the_change(monkeypatch):
    """What the test above would miss if weights were patched in memory all the same."""
    monkeypatch.setattr(fasten, "hold_at_use", lambda patcher, keys: None)
    model = quantised("Flux", "nvfp4")
    module, changes = module_for(model, quantised_layers(model))
    before = {key: loaded_weight(model, key) for key in changes}
    merged = merge(model, [module]).model
    load(merged, streaming=False)
    assert retained(merged, before, changes) < 0.9


def test_it_stays_so_from_one_sampling_to_the_next_and_the_lock_sees_it_go():
    model = quantised("Flux", "nvfp4")
    module, changes = module_for(model, quantised_layers(model))
    before = {key: loaded_weight(model, key) for key in changes}
    merged = merge(model, [module]).model
    first = zoo.sampled(merged, "Flux", steps=2)
    assert torch.equal(zoo.sampled(merged, "Flux", steps=2), first)
    assert not torch.equal(zoo.sampled(model, "Flux", steps=2), first)
    assert torch.equal(zoo.sampled(merged.clone(), "Flux", steps=2), first)
    assert retained(merged, before, changes) > rounding.ENOUGH
    key = next(iter(changes))
    get_attr(merged.model, key.rpartition(".")[0]).weight_function = []
    held = merged.get_attachment(KEY)
    assert held.not_computed(merged) == [key]
    with pytest.raises(SafetyError, match="is missing from the loaded weights"):
        held.check_loaded(merged)


def test_biases_that_are_held_at_use_are_added_as_biases():
    """In fp8 without scales, where rounding blurs a change that is this small."""
    model = zoo.build("Flux", torch.float8_e4m3fn)
    module, changes = module_for(model, ["double_blocks.0.img_attn.proj"])
    key = "diffusion_model.double_blocks.0.img_attn.proj"
    before = loaded_weight(model, f"{key}.bias")
    module.tensors[f"{key}.diff_b"] = before * 0.01
    merged = merge(model, [module])
    held = merged.model.get_attachment(KEY)
    assert held.at_use == {f"{key}.weight", f"{key}.bias"}
    load(merged.model, streaming=False)
    layer = get_attr(merged.model.model, key)
    assert not held.not_computed(merged.model)
    (bias,) = layer.bias_function
    assert torch.allclose(bias(before.clone()), before * 1.01)
    assert retained(merged.model, {k: loaded_weight(model, k) for k in changes}, changes) > 0.99


def test_a_format_that_nothing_can_be_put_into_is_held_at_use(monkeypatch):
    """As AWQ's, which the host can't make: its scales come from a calibration."""
    model = quantised("Flux", "nvfp4")
    module, changes = module_for(model, quantised_layers(model))
    before = {key: loaded_weight(model, key) for key in changes}

    def refuse(*_, **__):
        raise NotImplementedError("requires offline calibration")

    layer = get_attr(model.model, next(iter(changes)).rpartition(".")[0])
    monkeypatch.setattr(type(layer), "set_weight", refuse)
    merged = merge(model, [module])
    [found] = merged.report["rounding"].values()
    assert found["before"] == pytest.approx(1.0, abs=1e-3) and found["after"] is None
    assert found["held"] == "at use, unrounded"
    load(merged.model, streaming=True)
    assert retained(merged.model, before, changes) > rounding.ENOUGH
