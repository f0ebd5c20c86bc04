"""Merged weights: equal to the stock loaders' chain where that is right, and to the formula in float64 elsewhere."""

import itertools

import pytest
import torch

pytestmark = pytest.mark.usefixtures("comfyui")


@pytest.fixture(scope="module")
def tools(comfyui):
    """Modules that need ComfyUI to be importable."""
    import comfy.sd
    import comfy.utils
    import formats
    import merging
    from modular_safety_lora.demo import assets
    from modular_safety_lora.modular import files, merge

    class Tools:
        pass

    found = Tools()
    found.__dict__.update(
        sd=comfy.sd, utils=comfy.utils, formats=formats, assets=assets, files=files, merge=merge, **vars(merging)
    )
    return found


@pytest.fixture
def safety(tools, checkpoint):
    model, _ = checkpoint
    return tools.formats.Lora(tools.shapes(model, *tools.LINEAR, *tools.CONVOLUTION), 1)


def test_plain_lora_equals_the_stock_chain(tools, checkpoint, models):
    model, clip = checkpoint
    loras = models / "loras"
    names = [tools.assets.SAFETY, tools.assets.STYLE, tools.assets.SUBJECT]
    strengths = {tools.assets.SAFETY: 1.0, tools.assets.STYLE: 0.7, tools.assets.SUBJECT: -0.4}
    stock_model, stock_clip = model, clip
    for name in names:
        lora = tools.utils.load_torch_file(str(loras / name))
        stock_model, stock_clip = tools.sd.load_lora_for_models(
            stock_model, stock_clip, lora, strengths[name], strengths[name]
        )
    for order in itertools.permutations(names[1:]):
        tasks = [
            tools.merge.Task(tools.files.load_task(loras / name, name), strengths[name], strengths[name]) for name in order
        ]
        merged = tools.merge.merge(model, [tools.files.load_safety(loras / names[0], names[0])], tasks, clip)
        for ours, stock in ((merged.model, stock_model), (merged.clip.patcher, stock_clip.patcher)):
            assert ours.patches.keys() == stock.patches.keys() and ours.patches
            for key in stock.patches:
                assert tools.relative_error(tools.effective(ours, key), tools.effective(stock, key)) < 1e-6, key


def test_sixteen_plain_loras_equal_the_stock_chain_and_are_one_patch(tools, checkpoint, safety):
    model, _ = checkpoint
    shapes = tools.shapes(model, *tools.LINEAR, *tools.CONVOLUTION)
    loras = [tools.formats.Lora(shapes, 100 + number).tensors() for number in range(16)]
    stock, _ = tools.sd.load_lora_for_models(model, None, safety.tensors(), 1.0, 1.0)
    for number, lora in enumerate(loras):
        stock, _ = tools.sd.load_lora_for_models(stock, None, lora, number / 10, 1.0)
    tasks = [tools.merge.Task(tools.task(lora, f"{number}"), number / 10) for number, lora in enumerate(loras)]
    merged = tools.merge.merge(model, [tools.safety(safety.tensors())], tasks)
    for key, chain in merged.model.patches.items():
        assert len(chain) == 2 and len(stock.patches[key]) == 17
        assert tools.relative_error(tools.effective(merged.model, key), tools.effective(stock, key)) < 1e-6, key


@pytest.mark.parametrize("layer_kind", ["LINEAR", "CONVOLUTION"])
def test_every_format_equals_its_formula_in_float64(tools, checkpoint, safety, layer_kind):
    model, _ = checkpoint
    layers = getattr(tools, layer_kind)
    for kind in getattr(tools.formats, layer_kind):
        module = kind(tools.shapes(model, *layers), 7)
        merged = tools.merge.merge(
            model, [tools.safety(safety.tensors())], [tools.merge.Task(tools.task(module.tensors()), 0.6)]
        )
        for name in layers:
            w0 = tools.base(model, name)
            expected = w0.double() + safety.delta(name, w0) + 0.6 * module.delta(name, w0)
            error = tools.relative_error(tools.effective(merged.model, name), expected)
            assert error < 1e-6, f"{kind.__name__} on {name}: {error:.2e}"


def test_mixtures_give_the_same_weights_in_every_order(tools, checkpoint, safety):
    model, _ = checkpoint
    kinds = (tools.formats.Dora, tools.formats.Oft, tools.formats.Lokr, tools.formats.Loha)
    modules = [kind(tools.shapes(model, *tools.LINEAR), 20 + number) for number, kind in enumerate(kinds)]
    strengths = [1.0, 0.5, -0.3, 0.8]
    tasks = [
        tools.merge.Task(tools.task(module.tensors(), type(module).__name__), strength)
        for module, strength in zip(modules, strengths, strict=True)
    ]
    expected = {}
    for name in tools.LINEAR:
        w0 = tools.base(model, name)
        expected[name] = w0.double() + safety.delta(name, w0)
        expected[name] += sum(s * module.delta(name, w0) for s, module in zip(strengths, modules, strict=True))
    for order in itertools.permutations(tasks):
        merged = tools.merge.merge(model, [tools.safety(safety.tensors())], order).model
        for name in tools.LINEAR:
            assert tools.relative_error(tools.effective(merged, name), expected[name]) < 1e-6, name


def test_the_stock_chain_does_depend_on_the_order(tools, checkpoint, safety):
    """The reason for this node; if ComfyUI ever takes changes against W0, this says so."""
    model, _ = checkpoint
    dora = tools.formats.Dora(tools.shapes(model, *tools.LINEAR), 3).tensors()
    first, second = model, model
    for lora in (safety.tensors(), dora):
        first, _ = tools.sd.load_lora_for_models(first, None, lora, 1.0, 1.0)
    for lora in (dora, safety.tensors()):
        second, _ = tools.sd.load_lora_for_models(second, None, lora, 1.0, 1.0)
    name = tools.LINEAR[0]
    assert tools.relative_error(tools.effective(first, name), tools.effective(second, name)) > 1e-3


@pytest.mark.parametrize("kind", ["Dora", "Oft", "Glora", "Whole"])
def test_a_safety_module_of_any_format_is_taken_against_w0(tools, checkpoint, kind):
    model, _ = checkpoint
    layers = tools.shapes(model, *tools.LINEAR)
    safety, other = getattr(tools.formats, kind)(layers, 31), tools.formats.Dora(layers, 32)
    merged = tools.merge.merge(
        model, [tools.safety(safety.tensors(), "0.5")], [tools.merge.Task(tools.task(other.tensors()))], foreign="report"
    )
    for name in tools.LINEAR:
        w0 = tools.base(model, name)
        expected = w0.double() + 0.5 * safety.delta(name, w0) + other.delta(name, w0)
        assert tools.relative_error(tools.effective(merged.model, name), expected) < 1e-6


def test_what_was_on_the_model_before_is_measured_against_w0_too(tools, checkpoint, safety):
    model, _ = checkpoint
    layers = tools.shapes(model, *tools.LINEAR)
    before, after = tools.formats.Dora(layers, 41), tools.formats.Oft(layers, 42)
    loaded, _ = tools.sd.load_lora_for_models(model, None, before.tensors(), 0.7, 1.0)
    merged = tools.merge.merge(
        loaded, [tools.safety(safety.tensors())], [tools.merge.Task(tools.task(after.tensors()), 0.9)]
    )
    for name in tools.LINEAR:
        w0 = tools.base(model, name)
        expected = w0.double() + safety.delta(name, w0) + 0.7 * before.delta(name, w0) + 0.9 * after.delta(name, w0)
        assert tools.relative_error(tools.effective(merged.model, name), expected) < 1e-6
    existing = merged.report["modules"][-1]
    assert existing["role"] == "existing" and existing["keys_matched"] == len(layers) and existing["relative_size"] > 0


def test_two_safety_modules_add_up(tools, checkpoint, safety):
    model, _ = checkpoint
    second = tools.formats.Loha(tools.shapes(model, *tools.LINEAR), 51)
    merged = tools.merge.merge(model, [tools.safety(safety.tensors()), tools.safety(second.tensors(), "0.5", "second")])
    for name in tools.LINEAR:
        w0 = tools.base(model, name)
        expected = w0.double() + safety.delta(name, w0) + 0.5 * second.delta(name, w0)
        assert tools.relative_error(tools.effective(merged.model, name), expected) < 1e-6
    assert merged.report["retained_safety"] == pytest.approx(1.0, abs=1e-5)
    assert [module["strength"] for module in merged.report["modules"]] == [1.0, 0.5]


def test_a_half_precision_weight_is_rounded_once(tools, checkpoint, safety):
    """On a GPU the host computes with fp16 weights: the sum of all changes is rounded, not each of them."""
    model, _ = checkpoint
    layers = tools.shapes(model, *tools.LINEAR)
    tasks = [tools.formats.Lora(layers, 60 + number) for number in range(4)] + [tools.formats.Dora(layers, 70)]
    merged = tools.merge.merge(
        model, [tools.safety(safety.tensors())], [tools.merge.Task(tools.task(each.tensors())) for each in tasks]
    )
    for name in tools.LINEAR:
        w0 = tools.base(model, name)
        expected = w0.double() + safety.delta(name, w0) + sum(each.delta(name, w0) for each in tasks)
        result = tools.effective(merged.model, name, torch.float16)
        assert result.dtype == torch.float16
        assert tools.relative_error(result, expected) < 2**-10


def test_the_loaded_model_really_has_the_weights_and_gives_them_back(tools, checkpoint, safety):
    import comfy.model_management

    model, _ = checkpoint
    layers = tools.shapes(model, *tools.LINEAR)
    dora = tools.formats.Dora(layers, 80)
    before = {name: tools.base(model, name) for name in layers}
    merged = tools.merge.merge(model, [tools.safety(safety.tensors())], [tools.merge.Task(tools.task(dora.tensors()))])
    comfy.model_management.load_models_gpu([merged.model], force_full_load=True)
    try:
        loaded = model.model.state_dict()
        for name, w0 in before.items():
            expected = w0.double() + safety.delta(name, w0) + dora.delta(name, w0)
            assert tools.relative_error(loaded[f"diffusion_model.{name}.weight"], expected) < 1e-3  # stored as fp16
            # W0 is found behind the patched weight, so a second merge while loaded is the same.
            assert torch.equal(tools.base(model, name), w0)
        again = tools.merge.merge(model, [tools.safety(safety.tensors())], [tools.merge.Task(tools.task(dora.tensors()))])
        assert again.report["retained_safety"] == merged.report["retained_safety"]
    finally:
        comfy.model_management.unload_all_models()
    assert all(torch.equal(tools.base(model, name), w0) for name, w0 in before.items())
    assert not model.patches
