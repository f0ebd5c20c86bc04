"""The names in a trained file: ComfyUI's loader and diffusers' give every layer its change.

What diffusers should have is told by its own converters of checkpoints, which split, swap and
rename the changes as they would the weights.
"""

from dataclasses import replace
from inspect import signature

import comfy.lora
import comfy.sd
import diffusers  # its classes load when they are asked for
import pytest
import torch
from diffusers_models import MODELS
from layer_roles import chosen
from merging import effective, relative_error, safety
from modular_safety_lora.host.families import FAMILIES, of_class
from modular_safety_lora.host.names import in_ecosystem_names
from modular_safety_lora.lab import zoo
from modular_safety_lora.merge.merge import merge
from modular_safety_lora.training.adapter_settings import AdapterSettings
from safetensors.torch import load_file, save_file
from small_runs import short_run
from small_runs import trained as run
from training_runs import learned

ROWS = {key: of_class(twin.config) for key, twin in zoo.TWINS.items()}
# of the zoo's: one for each of ComfyUI's tables of diffusers' names, and those that keep their own
RENAMED = list({row.diffusers: key for key, row in ROWS.items() if not row.alpha}.values())
UNETS = {key for key, twin in zoo.TWINS.items() if "num_res_blocks" in twin.unet}
KEPT = [key for key, row in ROWS.items() if row.alpha and key not in UNETS]


def test_every_family_that_diffusers_is_said_to_read_is_compared_with_it():
    compared = {twin.config or ROWS[twin.zoo].config for twin in MODELS.values()}
    assert {row.config for row in FAMILIES if row.diffusers or not row.alpha} <= compared


@pytest.fixture(params=MODELS)
def twin(request, monkeypatch, one_thread):
    """(what diffusers has of a family, ComfyUI's MODEL, diffusers' transformer)."""
    twin = MODELS[request.param]
    row = zoo.TWINS[twin.zoo]
    changed = replace(row, config=twin.config or row.config, unet={**row.unet, **twin.unet})
    monkeypatch.setitem(zoo.TWINS, twin.zoo, changed)
    kind = (
        "WanTransformer3DModel"
        if twin.transformer == "Wan"
        else f"{twin.transformer}Transformer2DModel"
    )
    transformer = getattr(diffusers, kind)(**twin.sizes)
    if twin.transformer == "ZImage":  # diffusers' has the released size, whatever `dim` is
        from diffusers.models.transformers.transformer_z_image import TimestepEmbedder

        transformer.t_embedder = TimestepEmbedder(256, mid_size=384)
    return twin, zoo.build(twin.zoo), transformer


def trained(model, targets: str, settings: AdapterSettings) -> tuple[dict, dict]:
    """(the tensors of adapters that have learned, the change of each layer's weight)."""
    network = model.model.diffusion_model
    layers = chosen(network, targets, type(model.model.model_config).__name__)
    return learned(network, layers, settings)


def in_diffusers(transformer, network, changes, monkeypatch) -> dict[str, torch.Tensor]:
    """The changes as diffusers' own converter of checkpoints gives its layers theirs."""
    weights = {
        name.replace("_norm.weight", "_norm.scale")
        if "single_blocks.0.linear1.weight" in network
        else name: changes.get(name.removesuffix(".weight"), torch.zeros_like(value))
        for name, value in network.items()
    }
    # the converter of Flux has the released sizes: here it splits small layers in its proportions
    split = torch.split
    monkeypatch.setattr(
        torch,
        "split",
        lambda value, sizes, dim=0: split(
            value, [n * len(value) // sum(sizes) for n in sizes], dim
        ),
    )
    from diffusers.loaders.single_file_model import SINGLE_FILE_LOADABLE_CLASSES

    convert = SINGLE_FILE_LOADABLE_CLASSES[type(transformer).__name__]["checkpoint_mapping_fn"]
    converted = convert(weights, config=transformer.config)
    monkeypatch.setattr(torch, "split", split)
    return {
        name.removesuffix(".weight"): value
        for name, value in converted.items()
        if name.endswith(".weight") and value.any()
    }


@pytest.mark.parametrize("settings", [AdapterSettings(3, 7.0), AdapterSettings(5, use_rslora=True)])
@pytest.mark.parametrize("targets", ["attn|attention", "all"])
def test_comfyui_and_diffusers_give_every_layer_its_change(
    twin, targets, settings, tmp_path, monkeypatch, caplog
):
    about, model, transformer = twin
    file = tmp_path / "lora.safetensors"
    tensors, changes = trained(model, targets, settings)
    save_file(in_ecosystem_names(tensors, model.model.model_config), file)

    stock, _ = comfy.sd.load_lora_for_models(model, None, load_file(file), 1.0, 1.0)
    assert set(stock.patches) == {f"diffusion_model.{layer}.weight" for layer in changes}
    for layer, change in changes.items():
        key = f"diffusion_model.{layer}.weight"
        given = comfy.lora.calculate_weight(stock.patches[key], torch.zeros_like(change), key)
        assert relative_error(given, change) < 1e-5, layer

    pipeline = getattr(diffusers, f"{about.pipeline}Pipeline")
    parts = dict.fromkeys(list(signature(pipeline.__init__).parameters)[1:])
    pipe = pipeline(**{**parts, "transformer": transformer})
    pipe.load_lora_weights(str(file), adapter_name="task")
    loaded = {
        name: module.get_delta_weight("task").detach()
        for name, module in transformer.named_modules()
        if hasattr(module, "get_delta_weight")
    }
    network = model.model.diffusion_model.state_dict()
    expected = in_diffusers(transformer, network, changes, monkeypatch)
    assert loaded.keys() == expected.keys()
    for layer, change in expected.items():
        assert relative_error(loaded[layer], change) < 1e-5, layer
    assert not [record for record in caplog.records if "not loaded" in record.message.lower()]


@pytest.mark.parametrize("family", RENAMED)
def test_the_merge_and_previews_take_them_as_the_names_of_comfyui(family, one_thread):
    model = zoo.build(family)
    tensors, changes = trained(model, "all", AdapterSettings(3, 6.0))
    named = in_ecosystem_names(tensors, model.model.model_config)
    ours, theirs = (merge(model, [safety(each)]).model for each in (tensors, named))
    assert ours.patches.keys() == theirs.patches.keys() and len(ours.patches) == len(changes)
    for key in ours.patches:
        assert relative_error(effective(theirs, key), effective(ours, key)) < 1e-6, key


def test_a_run_writes_them_and_the_stock_loader_takes_every_tensor(tmp_path, one_thread, caplog):
    model = zoo.build("SD35")
    settings = short_run(targets="attention", adapter=AdapterSettings(2, 4.0))
    tensors = run(model, settings, tmp_path / "task.safetensors").module.tensors
    assert all(key.startswith("transformer.") for key in tensors)
    stock, _ = comfy.sd.load_lora_for_models(model, None, dict(tensors), 1.0, 1.0)
    layers = chosen(
        model.model.diffusion_model, "attention", type(model.model.model_config).__name__
    )
    assert set(stock.patches) == {f"diffusion_model.{layer}.weight" for layer in layers}
    assert not [record for record in caplog.records if "not loaded" in record.message.lower()]


@pytest.mark.parametrize("family", KEPT)
def test_other_architectures_keep_the_names_that_comfyui_reads(family):
    model = zoo.build(family)
    tensors, _ = trained(model, "all", AdapterSettings(3, 6.0))
    assert in_ecosystem_names(tensors, model.model.model_config) == tensors


@pytest.mark.parametrize("family", RENAMED)
def test_a_dora_keeps_them_since_diffusers_reads_no_dora(family):
    model = zoo.build(family)
    tensors, _ = trained(model, "all", AdapterSettings(3, 6.0, use_dora=True))
    assert in_ecosystem_names(tensors, model.model.model_config) == tensors


def test_a_layer_that_diffusers_has_not_leaves_the_file_its_names():
    config = zoo.build("Flux").model.model_config
    tensors, _ = trained(zoo.build("Flux"), "img_attn", AdapterSettings())
    odd = {
        "diffusion_model.new.lora_A.weight": torch.ones(4, 8),
        "diffusion_model.new.lora_B.weight": torch.ones(8, 4),
    }
    wide = {  # an MLP that is not four times as wide, as ComfyUI's table has it
        "diffusion_model.single_blocks.0.linear1.lora_A.weight": torch.ones(4, 64),
        "diffusion_model.single_blocks.0.linear1.lora_B.weight": torch.ones(3 * 64 + 100, 4),
    }
    for more in (odd, wide):
        assert in_ecosystem_names({**tensors, **more}, config) == {**tensors, **more}
