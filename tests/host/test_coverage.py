"""Coverage: every tensor is accounted for before a model is handed on; misfits are named."""

import logging

import comfy.lora
import comfy.utils
import formats
import merging
import pytest
import torch
from modular_safety_lora.lab.assets import text_lora
from modular_safety_lora.merge import coverage, merge
from modular_safety_lora.merge import lock as guard
from modular_safety_lora.merge.changes import Change, TaskChanges


@pytest.fixture
def layers(checkpoint):
    return merging.shapes(checkpoint[0], *merging.LINEAR)


@pytest.fixture
def good(layers):
    return merging.safety(formats.Lora(layers, 1).tensors())


def refused(model, safety, tasks=(), clip=None) -> str:
    with pytest.raises(guard.SafetyError) as caught:
        merge.merge(model, safety, tasks, clip)
    return str(caught.value)


def test_a_safety_module_for_another_base_names_file_count_first_key_and_both_bases(checkpoint):
    other = {
        "transformer.joint_blocks.0.attn.lora_A.weight": torch.ones(4, 8),
        "b.lora_B.weight": torch.ones(8, 4),
    }
    module = merging.safety(other, name="sd3-safety.safetensors")
    message = refused(checkpoint[0], [module])
    assert message.startswith("sd3-safety.safetensors: 2 of 2 safety tensors do not fit this model")
    assert (
        "first: transformer.joint_blocks.0.attn.lora_A.weight: no layer of this model has this name"
        in message
    )
    assert "made for SD15; this model is SD15" in message  # as its metadata says


def test_one_renamed_safety_key_is_enough(checkpoint, layers):
    tensors = formats.Lora(layers, 1).tensors()
    key = next(key for key in tensors if key.endswith("lora_down.weight"))
    tensors[key.replace("attn", "atn")] = tensors.pop(key)
    message = refused(checkpoint[0], [merging.safety(tensors)])
    assert message.startswith(
        f"safety.safetensors: 2 of {len(tensors)} safety tensors do not fit this model"
        " (first: diffusion"
    )
    assert f"{key} is missing" in message


def test_one_renamed_layer_is_enough(checkpoint, layers):
    tensors = formats.Lora(layers, 1).tensors()
    renamed = {key.replace("attn2.to_k", "attn2.to_kk"): value for key, value in tensors.items()}
    message = refused(checkpoint[0], [merging.safety(renamed)])
    assert f"3 of {len(tensors)} safety tensors do not fit" in message and "attn2.to_kk" in message


@pytest.mark.parametrize(
    "kind", ["Lora", "Dora", "Loha", "Lokr", "Oft", "Boft", "Glora", "Full", "Whole"]
)
@pytest.mark.parametrize("role", ["safety", "task"])
def test_a_wrong_shape_is_an_error_for_every_format(checkpoint, layers, good, kind, role):
    wrong = {name: torch.Size([shape[0] + 8, *shape[1:]]) for name, shape in layers.items()}
    tensors = getattr(formats, kind)(wrong, 1).tensors()
    if role == "safety":
        message = refused(checkpoint[0], [merging.safety(tensors)])
    else:
        message = refused(checkpoint[0], [good], [merge.Task(merging.task(tensors))])
    assert (
        message.startswith(f"{role}.safetensors: ")
        and f"{role} tensors do not fit this model" in message
    )
    assert "weight of (" in message


def test_a_wrong_dora_scale_is_an_error(checkpoint, layers, good):
    tensors = formats.Dora(layers, 1).tensors()
    key = next(key for key in tensors if key.endswith("dora_scale"))
    tensors[key] = tensors[key][:-1]
    assert "a DoRA scale of" in refused(checkpoint[0], [good], [merge.Task(merging.task(tensors))])


def test_a_task_module_that_fits_nowhere_is_an_error(checkpoint, good):
    message = refused(
        checkpoint[0], [good], [merge.Task(merging.task({"x.lora_A.weight": torch.ones(1, 2)}))]
    )
    assert message.startswith(
        "task.safetensors: 1 of 1 task tensors do not fit this model (first: x.lora_A.weight"
    )


def test_unused_task_keys_are_counted_named_and_logged_once(checkpoint, layers, good, caplog):

    tensors = formats.Lora(layers, 2).tensors()
    used = len(tensors)
    text = text_lora(3, blocks=2)
    tensors |= text | {"nowhere.lora_A.weight": torch.ones(1, 2)}
    tasks = [merge.Task(merging.task(tensors))]
    with caplog.at_level(logging.WARNING):
        report = merge.merge(checkpoint[0], [good], tasks).report
    entry = report["modules"][1]
    assert (entry["keys_matched"], entry["keys_total"]) == (used, len(tensors))
    expected = dict.fromkeys(text, coverage.NO_CLIP) | {"nowhere.lora_A.weight": coverage.NO_LAYER}
    assert entry["keys_unused"] == expected
    lines = [
        record.getMessage() for record in caplog.records if "are not used" in record.getMessage()
    ]
    assert len(lines) == 1 and lines[0].startswith(
        f"task.safetensors: {len(text) + 1} of {len(tensors)} tensors"
    )
    with_clip = merge.merge(checkpoint[0], [good], tasks, checkpoint[1]).report["modules"][1]
    assert with_clip["keys_unused"] == {"nowhere.lora_A.weight": coverage.NO_LAYER}


def test_a_safety_module_with_a_text_half_asks_for_the_clip(checkpoint, layers):

    module = merging.safety(formats.Lora(layers, 2).tensors() | text_lora(3))
    assert "no clip is connected). It was made" in refused(checkpoint[0], [module])
    assert "Connect the clip input." in refused(checkpoint[0], [module])
    merged = merge.merge(checkpoint[0], [module], clip=checkpoint[1])
    assert merged.report["modules"][0]["keys_unused"] == {}
    assert any(key.startswith("clip_l.") for key in merged.clip.patcher.patches)
    assert not checkpoint[1].patcher.patches


def test_a_layer_addressed_twice_does_not_vanish_in_a_safety_module(checkpoint, layers):
    """The stock parser keeps one of two names for the same layer, and counts both as loaded."""
    tensors = formats.Lora(layers, 4).tensors()
    name = merging.LINEAR[0]
    twice = {
        key.replace(f"diffusion_model.{name}", "lora_unet_" + name.replace(".", "_")): value
        for key, value in tensors.items()
        if key.startswith(f"diffusion_model.{name}.")
    }
    message = refused(checkpoint[0], [merging.safety(tensors | twice)])
    assert f"3 of {len(tensors) + 3} safety tensors" in message and coverage.OVERRIDDEN in message


@pytest.mark.parametrize("kind", formats.LINEAR)
def test_what_lands_is_what_the_stock_parser_lands(checkpoint, layers, kind):
    tensors = kind(layers, 3).tensors()
    names = coverage.key_map(checkpoint[0])
    ours = coverage.cover(
        merging.task(tensors), names, checkpoint[0].model.state_dict().keys(), False
    )
    stock = comfy.lora.load_lora(dict(tensors), names)
    assert ours.patches.keys() == stock.keys() and len(stock) == len(layers)
    assert ours.matched == set(tensors) and ours.unused == {} and ours.broken == {}
    for target, value in stock.items():
        mine = ours.patches[target]
        assert type(mine) is type(value)
        pairs = zip(coverage._tensors(mine), coverage._tensors(value), strict=True)
        assert all(a is b for a, b in pairs)


def test_half_a_pair_is_an_error(checkpoint, layers, good):
    tensors = formats.Lora(layers, 5).tensors()
    tensors = {key: value for key, value in tensors.items() if not key.endswith("lora_down.weight")}
    message = refused(checkpoint[0], [good], [merge.Task(merging.task(tensors))])
    assert (
        f"8 of {len(tensors)} task tensors do not fit" in message
        and "lora_down.weight is missing" in message
    )


def test_values_that_are_not_finite_and_empty_safety_modules_are_errors(checkpoint, layers, good):
    bad = formats.Lora(layers, 6).tensors()
    bad[next(iter(bad))][0, 0] = float("nan")
    assert "not finite" in refused(checkpoint[0], [good], [merge.Task(merging.task(bad))])
    assert "not finite" in refused(checkpoint[0], [merging.safety(bad)])
    zero = {key: value * 0 for key, value in formats.Lora(layers, 6).tensors().items()}
    assert "this safety module changes nothing" in refused(checkpoint[0], [merging.safety(zero)])


@pytest.mark.parametrize("strength", [float("nan"), float("inf")])
def test_a_strength_that_is_no_number_is_an_error(checkpoint, layers, good, strength):
    task = merge.Task(merging.task(formats.Lora(layers, 7).tensors()), strength)
    assert "must be a finite number" in refused(checkpoint[0], [good], [task])


def test_a_module_trained_beside_another_safety_module_is_refused(checkpoint, layers, good):
    tensors = formats.Lora(layers, 8).tensors()
    for mode in ("anchored", "frozen"):
        stranger = merging.task(tensors, **{"msl.safety_mode": mode, "msl.safety_sha256": "0" * 64})
        message = refused(checkpoint[0], [good], [merge.Task(stranger)])
        assert f"trained {mode} beside the safety module {'0' * 64} and needs it" in message
        friend = merging.task(
            tensors, **{"msl.safety_mode": mode, "msl.safety_sha256": good.sha256}
        )
        merge.merge(checkpoint[0], [good], [merge.Task(friend)])
    detached = merging.task(
        tensors, **{"msl.safety_mode": "detached", "msl.safety_sha256": "0" * 64}
    )
    merge.merge(checkpoint[0], [good], [merge.Task(detached)])


def test_no_safety_module_or_the_same_twice_is_an_error(checkpoint, good):
    assert "needs a safety module" in refused(checkpoint[0], [])
    assert "connected twice" in refused(checkpoint[0], [good, good])


def test_patchers_of_other_packs_are_refused(checkpoint, good):
    model = checkpoint[0].clone()

    class GGUFModelPatcher(type(model)):
        pass

    model.__class__ = GGUFModelPatcher
    with pytest.raises(ValueError, match=r"GGUFModelPatcher, which applies LoRAs in its own way"):
        merge.merge(model, [good])


def test_kohya_diffusers_and_peft_names_land_on_the_same_layers(checkpoint, layers, good):
    """The same LoRA under three names gives the same weights; PEFT itself writes the PEFT file."""
    from peft import LoraConfig, get_peft_model, get_peft_model_state_dict

    class Two(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.to_q, self.to_k = torch.nn.Linear(320, 320), torch.nn.Linear(768, 320)

    torch.manual_seed(9)
    peft = get_peft_model(
        Two(),
        LoraConfig(r=4, lora_alpha=4, target_modules=["to_q", "to_k"], init_lora_weights=False),
    )
    trained = get_peft_model_state_dict(peft)
    block = "input_blocks.1.1.transformer_blocks.0"
    to_ours = {"to_q": f"{block}.attn1.to_q", "to_k": f"{block}.attn2.to_k"}
    unet = comfy.utils.unet_to_diffusers(checkpoint[0].model.model_config.unet_config)
    to_diffusers = {ours: name for name, ours in unet.items()}
    files = {"peft": {}, "kohya": {}, "diffusers": {}}
    for key, value in trained.items():
        layer, half = key.removeprefix("base_model.model.").split(".", 1)
        ours = to_ours[layer]
        kohya = "lora_down.weight" if "lora_A" in half else "lora_up.weight"
        diffusers = (
            to_diffusers[f"{ours}.weight"].removesuffix(".weight").replace(".to_", ".processor.to_")
        )
        files["peft"][f"diffusion_model.{ours}.{half}"] = value
        files["kohya"][f"lora_unet_{ours.replace('.', '_')}.{kohya}"] = value
        files["diffusers"][f"unet.{diffusers}_{kohya.replace('lora_', 'lora.')}"] = value
    merged = [
        merge.merge(checkpoint[0], [good], [merge.Task(merging.task(each, name))])
        for name, each in files.items()
    ]
    for result in merged:
        assert result.report["modules"][1]["keys_matched"] == 4
    for layer, ours in to_ours.items():
        down, up = (trained[f"base_model.model.{layer}.lora_{side}.weight"] for side in "AB")
        for result in merged:
            change = merging.effective(result.model, ours).double() - merging.effective(
                merge.merge(checkpoint[0], [good]).model, ours
            )
            assert torch.allclose(change, (up @ down).double(), atol=1e-6)


def test_a_part_of_a_fused_weight_is_changed_alone(checkpoint):
    """Flux, SD3 and others map q, k and v onto parts of one weight.

    The offsets are tried with changes that need W0 as well.
    """

    w0 = torch.randn(12, 8, generator=torch.Generator().manual_seed(1))
    parts = {"q": (0, 0, 4), "v": (0, 8, 4)}
    kinds = {
        "q": formats.Dora({"q": torch.Size([4, 8])}, 1),
        "v": formats.Lora({"v": torch.Size([4, 8])}, 2),
    }

    members, expected = [], w0.double().clone()
    for name, module in kinds.items():
        named = {
            key.removeprefix("diffusion_model."): value for key, value in module.tensors().items()
        }
        value = comfy.lora.load_lora(named, {name: "w"}, log_missing=False)["w"]
        change = Change(0.5, value, parts[name])
        members.append((change.strength, change.value, change.offset, change.function))
        expected.narrow(*parts[name]).add_(0.5 * module.delta(name, w0.narrow(*parts[name])))
    result = comfy.lora.calculate_weight(
        [(1.0, TaskChanges(set(), ([], tuple(members))), 1.0, None, None)], w0.clone(), "w"
    )
    assert merging.relative_error(result, expected) < 1e-6
