"""What means no harm works, or is refused with the reason and the way out."""

import comfy.lora
import comfy.sd
import comfy_extras.nodes_model_merging as mixing
import formats
import merging
import numpy as np
import pytest
import torch
from modular_safety_lora.merge import merge, on_model
from modular_safety_lora.merge.interference import picture
from modular_safety_lora.modules.errors import SafetyError

LAYER = merging.LINEAR[0]


@pytest.fixture(scope="module")
def held(shapes):
    return merging.safety(formats.Lora(shapes, 1).tensors())


@pytest.fixture(scope="module")
def merged(checkpoint, held):
    return merge.merge(checkpoint[0], [held]).model


def faults(model) -> list[str]:
    return model.get_attachment(on_model.KEY).faults(model)


def number_anew(value: object) -> object:
    return float(repr(value)) if isinstance(value, float) else value


def test_a_lora_that_changes_a_shape_before_the_merge_is_refused_with_its_way_out(checkpoint, held):
    shape = merging.shapes(checkpoint[0], LAYER)[LAYER]
    wider = torch.Size((shape[0], 2 * shape[1]))
    tensors = formats.Lora({LAYER: wider}, 3).tensors()
    key = next(key for key in tensors if "lora_up" in key).replace("lora_up.weight", "")
    reshaped = tensors | {f"{key}reshape_weight": torch.tensor(wider)}
    model = comfy.sd.load_lora_for_models(checkpoint[0], None, reshaped, 1.0, 0.0)[0]
    assert model.patches
    with pytest.raises(SafetyError, match=r"to \(320, 640\).*Remove its loader"):
        merge.merge(model, [held])


@pytest.mark.parametrize("name", ["a $x_{$ b", "$\\frac{$", "5$ and 6$", "tab\there"])
def test_a_name_that_is_no_formula_is_shown_as_it_is(name):
    beside = {f"{name}.safetensors": {"diffusion_model.x.weight": 0.7}}
    drawn, plain = (
        picture(beside),
        picture({"plain.safetensors": {"diffusion_model.x.weight": 0.7}}),
    )
    assert drawn.size == plain.size and np.asarray(drawn).std() > 1.0
    math = picture({"$frac$.safetensors": {"diffusion_model.x.weight": 0.7}})
    dollars = (
        np.asarray(math, dtype=int)[:40, :400]
        - np.asarray(picture({"frac.safetensors": {"diffusion_model.x.weight": 0.7}}), dtype=int)[
            :40, :400
        ]
    )
    assert np.abs(dollars).max() > 100  # the two `$` are there


def test_what_cant_be_drawn_stops_no_merge():
    drawn = picture({"a.safetensors": {None: 0.7}})  # a layer without a name
    assert drawn.size == (900, 60)


def test_entries_that_were_made_anew_and_hold_the_same_are_no_alarm(checkpoint, merged):
    rebuilt = merged.clone()
    for key, entries in rebuilt.patches.items():
        rebuilt.patches[key] = [tuple(map(number_anew, entry)) for entry in entries]
        for entry, other in zip(entries, rebuilt.patches[key], strict=True):
            assert entry is not other and entry[0] is not other[0]
    assert faults(rebuilt) == []
    rebuilt.load(rebuilt.load_device, full_load=True)
    try:
        assert merged.get_attachment(on_model.KEY).not_computed(rebuilt) == []
    finally:
        rebuilt.detach()


CHANGED = {
    "its strength": lambda entry: (0.9 * entry[0], *entry[1:]),
    "its strength to none": lambda entry: (float("nan"), *entry[1:]),
    "what it does": lambda entry: (entry[0], ("diff", (torch.zeros(1),)), *entry[2:]),
    "what came before": lambda entry: (*entry[:2], 0.9, *entry[3:]),
    "its place": lambda entry: (*entry[:3], (0, 0, 1), entry[4]),
    "its function": lambda entry: (*entry[:4], lambda diff: 0 * diff),
}


@pytest.mark.parametrize("what", CHANGED)
def test_an_entry_that_was_made_anew_and_changed_is_one(merged, what):
    rebuilt = merged.clone()
    key = next(iter(rebuilt.patches))
    rebuilt.patches[key] = [CHANGED[what](entry) for entry in rebuilt.patches[key]]
    assert faults(rebuilt) == [f"the safety LoRA's change is gone from {key}"]


def test_two_locked_models_that_are_merged_are_told_to_merge_before(checkpoint, held, merged):
    both = mixing.ModelMergeSimple().merge(merged, merge.merge(checkpoint[0], [held]).model, 0.5)[0]
    lock = both.get_attachment(on_model.KEY)
    with pytest.raises(SafetyError, match=r"merge models before it.* a later node scales"):
        lock.check(both)


def test_a_compiled_block_is_refused_with_its_way_out(checkpoint, held, merged):
    name = "diffusion_model.input_blocks.1"
    compiled = merged.clone()
    block = compiled.get_model_object(name)
    compiled.add_object_patch(name, torch.compile(block, backend="eager"))
    (fault,) = faults(compiled)
    assert fault.startswith(f"replaced module {name} (compiled: ComfyUI patches no weight in it")
    with pytest.raises(SafetyError, match="use TorchCompileModel"):
        merge.merge(compiled_before(checkpoint[0], name), [held])


def compiled_before(model, name: str):
    model = model.clone()
    model.add_object_patch(name, torch.compile(model.get_model_object(name), backend="eager"))
    return model


def test_an_injection_of_nothing_is_no_alarm(merged):
    empty = merged.clone()
    empty.set_injections("none", [])
    assert faults(empty) == []
