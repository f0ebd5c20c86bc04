"""Merged weights: as the stock loaders' chain where that is right, as the formula elsewhere.

The formula is in float64.
"""

import itertools

import comfy.sd
import comfy.utils
import formats
import merging
import pytest
from modular_safety_lora.lab import assets
from modular_safety_lora.merge import merge
from modular_safety_lora.modules import files


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


def test_sixteen_plain_loras_equal_the_stock_chain_and_are_one_patch(checkpoint, safety_lora):
    model, _ = checkpoint
    shapes = merging.shapes(model, *merging.LINEAR, *merging.CONVOLUTION)
    loras = [formats.Lora(shapes, 100 + number).tensors() for number in range(16)]
    stock, _ = comfy.sd.load_lora_for_models(model, None, safety_lora.tensors(), 1.0, 1.0)
    for number, lora in enumerate(loras):
        stock, _ = comfy.sd.load_lora_for_models(stock, None, lora, number / 10, 1.0)
    tasks = [
        merge.Task(merging.task(lora, f"{number}"), number / 10)
        for number, lora in enumerate(loras)
    ]
    merged = merge.merge(model, [merging.safety(safety_lora.tensors())], tasks)
    for key, chain in merged.model.patches.items():
        assert len(chain) == 2 and len(stock.patches[key]) == 17
        assert (
            merging.relative_error(
                merging.effective(merged.model, key), merging.effective(stock, key)
            )
            < 1e-6
        ), key


@pytest.mark.parametrize("layer_kind", ["LINEAR", "CONVOLUTION"])
def test_every_format_equals_its_formula_in_float64(checkpoint, safety_lora, layer_kind):
    model, _ = checkpoint
    layers = getattr(merging, layer_kind)
    for kind in getattr(formats, layer_kind):
        module = kind(merging.shapes(model, *layers), 7)
        merged = merge.merge(
            model,
            [merging.safety(safety_lora.tensors())],
            [merge.Task(merging.task(module.tensors()), 0.6)],
        )
        for name in layers:
            w0 = merging.base(model, name)
            expected = w0.double() + safety_lora.delta(name, w0) + 0.6 * module.delta(name, w0)
            error = merging.relative_error(merging.effective(merged.model, name), expected)
            assert error < 1e-6, f"{kind.__name__} on {name}: {error:.2e}"


def test_mixtures_give_the_same_weights_in_every_order(checkpoint, safety_lora):
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
        expected[name] = w0.double() + safety_lora.delta(name, w0)
        expected[name] += sum(
            s * module.delta(name, w0) for s, module in zip(strengths, modules, strict=True)
        )
    for order in itertools.permutations(tasks):
        merged = merge.merge(model, [merging.safety(safety_lora.tensors())], order).model
        for name in merging.LINEAR:
            assert merging.relative_error(merging.effective(merged, name), expected[name]) < 1e-6, (
                name
            )


def test_the_stock_chain_does_depend_on_the_order(checkpoint, safety_lora):
    """The reason for this node; if ComfyUI ever takes changes against W0, this says so."""
    model, _ = checkpoint
    dora = formats.Dora(merging.shapes(model, *merging.LINEAR), 3).tensors()
    first, second = model, model
    for lora in (safety_lora.tensors(), dora):
        first, _ = comfy.sd.load_lora_for_models(first, None, lora, 1.0, 1.0)
    for lora in (dora, safety_lora.tensors()):
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


def test_two_safety_modules_add_up(checkpoint, safety_lora):
    model, _ = checkpoint
    second = formats.Loha(merging.shapes(model, *merging.LINEAR), 51)
    merged = merge.merge(
        model,
        [merging.safety(safety_lora.tensors()), merging.safety(second.tensors(), "0.5", "second")],
    )
    for name in merging.LINEAR:
        w0 = merging.base(model, name)
        expected = w0.double() + safety_lora.delta(name, w0) + 0.5 * second.delta(name, w0)
        assert merging.relative_error(merging.effective(merged.model, name), expected) < 1e-6
    # what another pulls against it counts
    held = [module["retained_safety"] for module in merged.report["modules"]]
    assert merged.report["retained_safety"] == min(held) and 0.9 < min(held) <= max(held) <= 1.0
    assert [module["strength"] for module in merged.report["modules"]] == [1.0, 0.5]
