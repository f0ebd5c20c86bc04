"""Merged weights: as the stock loaders' chain where that is right, as the formula elsewhere.

The formula is in float64.
"""

import itertools

import comfy.model_management
import comfy.sd
import comfy.utils
import formats
import merging
import pytest
import torch
from modular_safety_lora.lab import assets
from modular_safety_lora.merge import merge
from modular_safety_lora.modules import files


@pytest.fixture
def safety(checkpoint):
    model, _ = checkpoint
    return formats.Lora(merging.shapes(model, *merging.LINEAR, *merging.CONVOLUTION), 1)


def test_plain_lora_equals_the_stock_chain(checkpoint, models):
    model, clip = checkpoint
    loras = models / "loras"
    names = [assets.SAFETY, assets.STYLE, assets.SUBJECT]
    strengths = {assets.SAFETY: 1.0, assets.STYLE: 0.7, assets.SUBJECT: -0.4}
    stock_model, stock_clip = model, clip
    for name in names:
        lora = comfy.utils.load_torch_file(str(loras / name))
        stock_model, stock_clip = comfy.sd.load_lora_for_models(
            stock_model, stock_clip, lora, strengths[name], strengths[name]
        )
    for order in itertools.permutations(names[1:]):
        tasks = [
            merge.Task(files.load_task(loras / name, name), strengths[name], strengths[name])
            for name in order
        ]
        merged = merge.merge(model, [files.load_safety(loras / names[0], names[0])], tasks, clip)
        for ours, stock in ((merged.model, stock_model), (merged.clip.patcher, stock_clip.patcher)):
            assert ours.patches.keys() == stock.patches.keys() and ours.patches
            for key in stock.patches:
                assert (
                    merging.relative_error(
                        merging.effective(ours, key), merging.effective(stock, key)
                    )
                    < 1e-6
                ), key


def test_sixteen_plain_loras_equal_the_stock_chain_and_are_one_patch(checkpoint, safety):
    model, _ = checkpoint
    shapes = merging.shapes(model, *merging.LINEAR, *merging.CONVOLUTION)
    loras = [formats.Lora(shapes, 100 + number).tensors() for number in range(16)]
    stock, _ = comfy.sd.load_lora_for_models(model, None, safety.tensors(), 1.0, 1.0)
    for number, lora in enumerate(loras):
        stock, _ = comfy.sd.load_lora_for_models(stock, None, lora, number / 10, 1.0)
    tasks = [
        merge.Task(merging.task(lora, f"{number}"), number / 10)
        for number, lora in enumerate(loras)
    ]
    merged = merge.merge(model, [merging.safety(safety.tensors())], tasks)
    for key, chain in merged.model.patches.items():
        assert len(chain) == 2 and len(stock.patches[key]) == 17
        assert (
            merging.relative_error(
                merging.effective(merged.model, key), merging.effective(stock, key)
            )
            < 1e-6
        ), key


@pytest.mark.parametrize("layer_kind", ["LINEAR", "CONVOLUTION"])
def test_every_format_equals_its_formula_in_float64(checkpoint, safety, layer_kind):
    model, _ = checkpoint
    layers = getattr(merging, layer_kind)
    for kind in getattr(formats, layer_kind):
        module = kind(merging.shapes(model, *layers), 7)
        merged = merge.merge(
            model,
            [merging.safety(safety.tensors())],
            [merge.Task(merging.task(module.tensors()), 0.6)],
        )
        for name in layers:
            w0 = merging.base(model, name)
            expected = w0.double() + safety.delta(name, w0) + 0.6 * module.delta(name, w0)
            error = merging.relative_error(merging.effective(merged.model, name), expected)
            assert error < 1e-6, f"{kind.__name__} on {name}: {error:.2e}"


def test_mixtures_give_the_same_weights_in_every_order(checkpoint, safety):
    model, _ = checkpoint
    kinds = (formats.Dora, formats.Oft, formats.Lokr, formats.Loha)
    modules = [
        kind(merging.shapes(model, *merging.LINEAR), 20 + number)
        for number, kind in enumerate(kinds)
    ]
    strengths = [1.0, 0.5, -0.3, 0.8]
    tasks = [
        merge.Task(merging.task(module.tensors(), type(module).__name__), strength)
        for module, strength in zip(modules, strengths, strict=True)
    ]
    expected = {}
    for name in merging.LINEAR:
        w0 = merging.base(model, name)
        expected[name] = w0.double() + safety.delta(name, w0)
        expected[name] += sum(
            s * module.delta(name, w0) for s, module in zip(strengths, modules, strict=True)
        )
    for order in itertools.permutations(tasks):
        merged = merge.merge(model, [merging.safety(safety.tensors())], order).model
        for name in merging.LINEAR:
            assert merging.relative_error(merging.effective(merged, name), expected[name]) < 1e-6, (
                name
            )


def test_the_stock_chain_does_depend_on_the_order(checkpoint, safety):
    """The reason for this node; if ComfyUI ever takes changes against W0, this says so."""
    model, _ = checkpoint
    dora = formats.Dora(merging.shapes(model, *merging.LINEAR), 3).tensors()
    first, second = model, model
    for lora in (safety.tensors(), dora):
        first, _ = comfy.sd.load_lora_for_models(first, None, lora, 1.0, 1.0)
    for lora in (dora, safety.tensors()):
        second, _ = comfy.sd.load_lora_for_models(second, None, lora, 1.0, 1.0)
    name = merging.LINEAR[0]
    assert (
        merging.relative_error(merging.effective(first, name), merging.effective(second, name))
        > 1e-3
    )


@pytest.mark.parametrize("kind", ["Dora", "Oft", "Glora", "Whole"])
def test_a_safety_module_of_any_format_is_taken_against_w0(checkpoint, kind):
    model, _ = checkpoint
    layers = merging.shapes(model, *merging.LINEAR)
    safety, other = getattr(formats, kind)(layers, 31), formats.Dora(layers, 32)
    merged = merge.merge(
        model,
        [merging.safety(safety.tensors(), "0.5")],
        [merge.Task(merging.task(other.tensors()))],
        foreign="report",
    )
    for name in merging.LINEAR:
        w0 = merging.base(model, name)
        expected = w0.double() + 0.5 * safety.delta(name, w0) + other.delta(name, w0)
        assert merging.relative_error(merging.effective(merged.model, name), expected) < 1e-6


def test_what_was_on_the_model_before_is_measured_against_w0_too(checkpoint, safety):
    model, _ = checkpoint
    layers = merging.shapes(model, *merging.LINEAR)
    before, after = formats.Dora(layers, 41), formats.Oft(layers, 42)
    loaded, _ = comfy.sd.load_lora_for_models(model, None, before.tensors(), 0.7, 1.0)
    merged = merge.merge(
        loaded, [merging.safety(safety.tensors())], [merge.Task(merging.task(after.tensors()), 0.9)]
    )
    for name in merging.LINEAR:
        w0 = merging.base(model, name)
        expected = (
            w0.double()
            + safety.delta(name, w0)
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


def test_two_safety_modules_add_up(checkpoint, safety):
    model, _ = checkpoint
    second = formats.Loha(merging.shapes(model, *merging.LINEAR), 51)
    merged = merge.merge(
        model, [merging.safety(safety.tensors()), merging.safety(second.tensors(), "0.5", "second")]
    )
    for name in merging.LINEAR:
        w0 = merging.base(model, name)
        expected = w0.double() + safety.delta(name, w0) + 0.5 * second.delta(name, w0)
        assert merging.relative_error(merging.effective(merged.model, name), expected) < 1e-6
    # what another pulls against it counts
    held = [module["retained_safety"] for module in merged.report["modules"]]
    assert merged.report["retained_safety"] == min(held) and 0.9 < min(held) <= max(held) <= 1.0
    assert [module["strength"] for module in merged.report["modules"]] == [1.0, 0.5]


def test_a_half_precision_weight_is_rounded_once(checkpoint, safety):
    """On a GPU the host computes with fp16 weights: the sum of changes is rounded, not each."""
    model, _ = checkpoint
    layers = merging.shapes(model, *merging.LINEAR)
    tasks = [formats.Lora(layers, 60 + number) for number in range(4)] + [formats.Dora(layers, 70)]
    merged = merge.merge(
        model,
        [merging.safety(safety.tensors())],
        [merge.Task(merging.task(each.tensors())) for each in tasks],
    )
    for name in merging.LINEAR:
        w0 = merging.base(model, name)
        expected = (
            w0.double() + safety.delta(name, w0) + sum(each.delta(name, w0) for each in tasks)
        )
        result = merging.effective(merged.model, name, torch.float16)
        assert result.dtype == torch.float16
        assert merging.relative_error(result, expected) < 2**-10


def test_weights_patched_as_they_are_cast_are_the_same(checkpoint, safety):
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
    merged = merge.merge(loaded, [merging.safety(safety.tensors())], tasks).model
    for name in merging.LINEAR:
        key = f"diffusion_model.{name}.weight"
        patch = LowVramPatch(key, merged.patches)
        buffer = torch.empty(patch.memory_required(), dtype=torch.uint8)
        patch.prepare(buffer, None)
        assert torch.equal(patch(merging.base(model, name)), merging.effective(merged, name))


def test_the_loaded_model_really_has_the_weights_and_gives_them_back(checkpoint, safety):

    model, _ = checkpoint
    layers = merging.shapes(model, *merging.LINEAR)
    dora = formats.Dora(layers, 80)
    before = {name: merging.base(model, name) for name in layers}
    merged = merge.merge(
        model, [merging.safety(safety.tensors())], [merge.Task(merging.task(dora.tensors()))]
    )
    comfy.model_management.load_models_gpu([merged.model], force_full_load=True)
    try:
        loaded = model.model.state_dict()
        for name, w0 in before.items():
            expected = w0.double() + safety.delta(name, w0) + dora.delta(name, w0)
            # stored as fp16
            assert merging.relative_error(loaded[f"diffusion_model.{name}.weight"], expected) < 1e-3
            # W0 is found behind the patched weight, so a second merge while loaded is the same.
            assert torch.equal(merging.base(model, name), w0)
        again = merge.merge(
            model, [merging.safety(safety.tensors())], [merge.Task(merging.task(dora.tensors()))]
        )
        assert again.report["retained_safety"] == merged.report["retained_safety"]
    finally:
        comfy.model_management.unload_all_models()
    assert all(torch.equal(merging.base(model, name), w0) for name, w0 in before.items())
    assert not model.patches
