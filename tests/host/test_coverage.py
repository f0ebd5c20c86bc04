"""Coverage: every tensor is accounted for before a model is handed on; misfits are named."""

import logging
import re

import comfy.lora
import formats
import merging
import pytest
import torch
from comfy.weight_adapter import LoKrAdapter
from modular_safety_lora.lab.assets import text_lora
from modular_safety_lora.merge import coverage, merge
from modular_safety_lora.modules.errors import SafetyError


@pytest.fixture
def good(shapes):
    return merging.safety(formats.Lora(shapes, 1).tensors())


def refused(model, safety, tasks=(), clip=None) -> str:
    with pytest.raises(SafetyError) as caught:
        merge.merge(model, safety, tasks, clip)
    return str(caught.value)


def test_a_safety_module_for_another_base_names_file_count_first_key_and_both_bases(checkpoint):
    other = {
        "transformer.joint_blocks.0.attn.lora_A.weight": torch.ones(4, 8),
        "b.lora_B.weight": torch.ones(8, 4),
    }
    module = merging.safety(other, name="sd3-safety.safetensors", base="SD3")
    message = refused(checkpoint[0], [module])
    assert message.startswith("sd3-safety.safetensors does not fit this model: ")
    assert "it was made for SD3, and this model is SD15. Use it on its own base" in message
    assert message.endswith(
        "(2 of 2 safety tensors do not fit, first: transformer.joint_blocks.0.attn.lora_A.weight:"
        " no layer of this model has this name.)"
    )


def test_a_checkpoint_in_a_loras_place_is_called_one(checkpoint, good):
    whole = merging.task({"first_stage_model.decoder.conv_in.weight": torch.ones(4, 4, 3, 3)})
    assert "It is a whole checkpoint: open it with Load" in refused(
        checkpoint[0], [good], [merge.Task(whole, 1.0)]
    )


def test_one_renamed_safety_key_is_enough(checkpoint, shapes):
    tensors = formats.Lora(shapes, 1).tensors()
    key = next(key for key in tensors if key.endswith("lora_down.weight"))
    tensors[key.replace("attn", "atn")] = tensors.pop(key)
    message = refused(checkpoint[0], [merging.safety(tensors)])
    assert message.startswith(
        "safety.safetensors does not fit this model. Use it on its own base, or"
    )
    assert f"(2 of {len(tensors)} safety tensors do not fit, first: diffusion" in message
    assert f"{key} is missing" in message


def test_one_renamed_layer_is_enough(checkpoint, shapes):
    tensors = formats.Lora(shapes, 1).tensors()
    renamed = {key.replace("attn2.to_k", "attn2.to_kk"): value for key, value in tensors.items()}
    message = refused(checkpoint[0], [merging.safety(renamed)])
    assert f"(3 of {len(tensors)} safety tensors do not fit" in message and "attn2.to_kk" in message


@pytest.mark.parametrize(
    "kind", ["Lora", "Dora", "Loha", "Lokr", "Oft", "Boft", "Glora", "Full", "Whole"]
)
@pytest.mark.parametrize("role", ["safety", "task"])
def test_a_wrong_shape_is_an_error_for_every_format(checkpoint, shapes, good, kind, role):
    wrong = {name: torch.Size([shape[0] + 8, *shape[1:]]) for name, shape in shapes.items()}
    tensors = getattr(formats, kind)(wrong, 1).tensors()
    if role == "safety":
        message = refused(checkpoint[0], [merging.safety(tensors)])
    else:
        message = refused(checkpoint[0], [good], [merge.Task(merging.task(tensors))])
    assert message.startswith(f"{role}.safetensors does not fit this model")
    some = rf"(1 of \d+ {role} tensors does|\d+ of \d+ {role} tensors do) not fit, first: "
    assert re.search(some, message), message
    assert "weight of (" in message


def test_a_wrong_dora_scale_is_an_error(checkpoint, shapes, good):
    tensors = formats.Dora(shapes, 1).tensors()
    key = next(key for key in tensors if key.endswith("dora_scale"))
    tensors[key] = tensors[key][:-1]
    assert "a DoRA scale of" in refused(checkpoint[0], [good], [merge.Task(merging.task(tensors))])


def test_a_task_module_that_fits_nowhere_is_an_error(checkpoint, good):
    message = refused(
        checkpoint[0], [good], [merge.Task(merging.task({"x.lora_A.weight": torch.ones(1, 2)}))]
    )
    assert message.startswith("task.safetensors does not fit this model")
    assert "(1 of 1 task tensor does not fit, first: x.lora_A.weight" in message


def test_unused_task_keys_are_counted_named_and_logged_once(checkpoint, shapes, good, caplog):

    tensors = formats.Lora(shapes, 2).tensors()
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
        record.getMessage() for record in caplog.records if "can't be used" in record.getMessage()
    ]
    assert len(lines) == 1 and lines[0].startswith(
        f"task.safetensors: {len(text) + 1} of {len(tensors)} tensors"
    )
    with_clip = merge.merge(checkpoint[0], [good], tasks, checkpoint[1]).report["modules"][1]
    assert with_clip["keys_unused"] == {"nowhere.lora_A.weight": coverage.NO_LAYER}


def test_a_safety_module_with_a_text_half_asks_for_the_clip(checkpoint, shapes):

    module = merging.safety(formats.Lora(shapes, 2).tensors() | text_lora(3))
    message = refused(checkpoint[0], [module])
    assert "Connect the clip input. (" in message and "no clip is connected.)" in message
    assert "Connect the clip input." in refused(checkpoint[0], [module])
    merged = merge.merge(checkpoint[0], [module], clip=checkpoint[1])
    assert merged.report["modules"][0]["keys_unused"] == {}
    assert any(key.startswith("clip_l.") for key in merged.clip.patcher.patches)
    assert not checkpoint[1].patcher.patches


def test_a_layer_addressed_twice_does_not_vanish_in_a_safety_module(checkpoint, shapes):
    """The stock parser keeps one of two names for the same layer, and counts both as loaded."""
    tensors = formats.Lora(shapes, 4).tensors()
    name = merging.LINEAR[0]
    twice = {
        key.replace(f"diffusion_model.{name}", "lora_unet_" + name.replace(".", "_")): value
        for key, value in tensors.items()
        if key.startswith(f"diffusion_model.{name}.")
    }
    message = refused(checkpoint[0], [merging.safety(tensors | twice)])
    assert f"(3 of {len(tensors) + 3} safety tensors" in message and coverage.OVERRIDDEN in message


def test_half_a_pair_is_an_error(checkpoint, shapes, good):
    tensors = formats.Lora(shapes, 5).tensors()
    tensors = {key: value for key, value in tensors.items() if not key.endswith("lora_down.weight")}
    message = refused(checkpoint[0], [good], [merge.Task(merging.task(tensors))])
    assert (
        f"(8 of {len(tensors)} task tensors do not fit" in message
        and "lora_down.weight is missing" in message
    )


def test_values_that_are_not_finite_and_empty_safety_modules_are_errors(checkpoint, shapes, good):
    bad = formats.Lora(shapes, 6).tensors()
    bad[next(iter(bad))][0, 0] = float("nan")
    assert "NaN or infinite" in refused(checkpoint[0], [good], [merge.Task(merging.task(bad))])
    assert "NaN or infinite" in refused(checkpoint[0], [merging.safety(bad)])
    zero = {key: value * 0 for key, value in formats.Lora(shapes, 6).tensors().items()}
    assert "this safety LoRA changes nothing" in refused(checkpoint[0], [merging.safety(zero)])


@pytest.mark.parametrize("strength", [float("nan"), float("inf")])
def test_a_strength_that_is_no_number_is_an_error(checkpoint, shapes, good, strength):
    task = merge.Task(merging.task(formats.Lora(shapes, 7).tensors()), strength)
    assert "must be a finite number" in refused(checkpoint[0], [good], [task])


def test_a_module_trained_beside_another_safety_module_is_refused(checkpoint, shapes, good):
    tensors = formats.Lora(shapes, 8).tensors()
    for mode in ("anchored", "frozen"):
        stranger = merging.task(tensors, **{"msl.safety_mode": mode, "msl.safety_sha256": "0" * 64})
        message = refused(checkpoint[0], [good], [merge.Task(stranger)])
        assert f"trained {mode} beside the safety LoRA {'0' * 12} and needs it" in message
        friend = merging.task(
            tensors, **{"msl.safety_mode": mode, "msl.safety_sha256": good.sha256}
        )
        merge.merge(checkpoint[0], [good], [merge.Task(friend)])
    detached = merging.task(
        tensors, **{"msl.safety_mode": "detached", "msl.safety_sha256": "0" * 64}
    )
    merge.merge(checkpoint[0], [good], [merge.Task(detached)])


def test_no_safety_module_or_the_same_twice_is_an_error(checkpoint, good):
    assert "needs a safety LoRA" in refused(checkpoint[0], [])
    assert "connected twice" in refused(checkpoint[0], [good, good])


def test_patchers_of_other_packs_are_refused(checkpoint, good):
    model = checkpoint[0].clone()

    class GGUFModelPatcher(type(model)):
        pass

    model.__class__ = GGUFModelPatcher
    with pytest.raises(ValueError, match=r"applies LoRAs in its own way \(GGUFModelPatcher\)"):
        merge.merge(model, [good])


def test_a_scalar_that_newer_hosts_read_with_a_lokr_is_used(checkpoint, shapes, monkeypatch):
    """`row_offset`: which part of a fused weight the file's layer is."""
    load = LoKrAdapter.load

    def newer(x, lora, *args, **kwargs):
        assert f"{x}.row_offset" in lora and lora[f"{x}.row_offset"].item() == 0
        return load(x, lora, *args, **kwargs)

    monkeypatch.setattr(LoKrAdapter, "load", newer)
    tensors = formats.Lokr(shapes, 1).tensors()
    layers = {key.rpartition(".")[0] for key in tensors if key.endswith(".lokr_w1")}
    tensors |= {f"{layer}.row_offset": torch.tensor(0) for layer in layers}
    report = merge.merge(checkpoint[0], [merging.safety(tensors)]).report["modules"][0]
    assert report["keys_matched"] == report["keys_total"] == len(tensors) and layers


def test_a_setting_of_the_network_in_a_file_is_named(checkpoint, shapes, good, monkeypatch):
    """Newer hosts make an object patch of it, which is no change of a weight."""
    load, key = comfy.lora.load_lora, "diffusion_model.input_blocks.1.1.config"

    def newer(lora, to_load, log_missing=True):
        found = load(lora, to_load, log_missing)
        return found | ({key: ("config", (lora[key],))} if key in lora else {})

    tensors = formats.Lora(shapes, 2).tensors() | {key: torch.zeros(4)}
    for host in (load, newer):
        monkeypatch.setattr(comfy.lora, "load_lora", host)
        message = refused(checkpoint[0], [merging.safety(tensors)])
        assert "1 of" in message and f"first: {key}: {coverage.SETTING}.)" in message
        assert "model. Save it without them. (" in message
        tasks = [merge.Task(merging.task(tensors))]
        report = merge.merge(checkpoint[0], [good], tasks).report["modules"][1]
        assert report["keys_unused"] == {key: coverage.SETTING}
