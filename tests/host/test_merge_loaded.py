"""Merged weights on a model in use: patched before, in half precision, cast, and loaded."""

import comfy.model_management
import comfy.sd
import formats
import merging
import torch
from modular_safety_lora.merge import merge


def test_what_was_on_the_model_before_is_measured_against_w0_too(checkpoint, safety_lora):
    model, _ = checkpoint
    layers = merging.shapes(model, *merging.LINEAR)
    before, after = formats.Dora(layers, 41), formats.Oft(layers, 42)
    loaded, _ = comfy.sd.load_lora_for_models(model, None, before.tensors(), 0.7, 1.0)
    merged = merge.merge(
        loaded,
        [merging.safety(safety_lora.tensors())],
        [merge.Task(merging.task(after.tensors()), 0.9)],
    )
    for name in merging.LINEAR:
        w0 = merging.base(model, name)
        expected = (
            w0.double()
            + safety_lora.delta(name, w0)
            + 0.7 * before.delta(name, w0)
            + 0.9 * after.delta(name, w0)
        )
        assert merging.relative_error(merging.effective(merged.model, name), expected) < 1e-6
    existing = merged.report["modules"][-1]
    assert (
        existing["role"] == "existing"
        and existing["keys_matched"] == len(layers)
        and existing["relative_size"] > 0
    )


def test_a_half_precision_weight_is_rounded_once(checkpoint, safety_lora):
    """On a GPU the host computes with fp16 weights: the sum of changes is rounded, not each."""
    model, _ = checkpoint
    layers = merging.shapes(model, *merging.LINEAR)
    tasks = [formats.Lora(layers, 60 + number) for number in range(4)] + [formats.Dora(layers, 70)]
    merged = merge.merge(
        model,
        [merging.safety(safety_lora.tensors())],
        [merge.Task(merging.task(each.tensors())) for each in tasks],
    )
    for name in merging.LINEAR:
        w0 = merging.base(model, name)
        expected = (
            w0.double() + safety_lora.delta(name, w0) + sum(each.delta(name, w0) for each in tasks)
        )
        result = merging.effective(merged.model, name, torch.float16)
        assert result.dtype == torch.float16
        assert merging.relative_error(result, expected) < 2**-10


def test_weights_patched_as_they_are_cast_are_the_same(checkpoint, safety_lora):
    """Low memory, and NVIDIA's dynamic loading.

    The host rebuilds every value with moved tensors, and patches on use.
    """
    from comfy.model_patcher import LowVramPatch

    model, _ = checkpoint
    layers = merging.shapes(model, *merging.LINEAR)
    before, *after = (
        kind(layers, 90 + n)
        for n, kind in enumerate((formats.Lora, formats.Dora, formats.Lokr, formats.Loha))
    )
    loaded, _ = comfy.sd.load_lora_for_models(model, None, before.tensors(), 0.7, 1.0)
    tasks = [merge.Task(merging.task(module.tensors())) for module in after]
    merged = merge.merge(loaded, [merging.safety(safety_lora.tensors())], tasks).model
    for name in merging.LINEAR:
        key = f"diffusion_model.{name}.weight"
        patch = LowVramPatch(key, merged.patches)
        buffer = torch.empty(patch.memory_required(), dtype=torch.uint8)
        patch.prepare(buffer, None)
        assert torch.equal(patch(merging.base(model, name)), merging.effective(merged, name))


def test_the_loaded_model_really_has_the_weights_and_gives_them_back(checkpoint, safety_lora):

    model, _ = checkpoint
    layers = merging.shapes(model, *merging.LINEAR)
    dora = formats.Dora(layers, 80)
    before = {name: merging.base(model, name) for name in layers}
    merged = merge.merge(
        model, [merging.safety(safety_lora.tensors())], [merge.Task(merging.task(dora.tensors()))]
    )
    comfy.model_management.load_models_gpu([merged.model], force_full_load=True)
    try:
        loaded = model.model.state_dict()
        for name, w0 in before.items():
            expected = w0.double() + safety_lora.delta(name, w0) + dora.delta(name, w0)
            # stored as fp16
            assert merging.relative_error(loaded[f"diffusion_model.{name}.weight"], expected) < 1e-3
            # W0 is found behind the patched weight, so a second merge while loaded is the same.
            assert torch.equal(merging.base(model, name), w0)
        again = merge.merge(
            model,
            [merging.safety(safety_lora.tensors())],
            [merge.Task(merging.task(dora.tensors()))],
        )
        assert again.report["retained_safety"] == merged.report["retained_safety"]
    finally:
        comfy.model_management.unload_all_models()
    assert all(torch.equal(merging.base(model, name), w0) for name, w0 in before.items())
    assert not model.patches
