"""The operator's settings file.

Trusted keys hold everywhere a safety module enters, and a typo switches nothing off.
"""

import dataclasses
import json

import merging
import pytest
import torch
from hosting_page import settings_of_the_page
from modular_safety_lora.lab import assets
from modular_safety_lora.merge.merge import merge
from modular_safety_lora.modules.errors import SafetyError
from modular_safety_lora.modules.files import ModuleFileError, load_safety
from modular_safety_lora.modules.signing import new_key, sign_file
from modular_safety_lora.nodes.load import LoadSafetyLora
from modular_safety_lora.nodes.merge import ModularMerge
from modular_safety_lora.nodes.seal import SealSafetyLora
from modular_safety_lora.nodes.settings import SettingsError, operator
from modular_safety_lora.training.engine.job import TrainingJob
from modular_safety_lora.training.engine.previews import Previews
from modular_safety_lora.training.objectives import Erasure
from modular_safety_lora.training.safety import train_safety
from modular_safety_lora.training.settings import Settings
from operator_settings import load
from safetensors.torch import load_file, save_file


def test_without_settings_nothing_changes(write_settings):
    assert load("unsigned")
    write_settings({})
    assert load("unsigned")


def test_the_settings_that_the_page_for_hosts_shows_are_taken(write_settings):
    shown = settings_of_the_page()
    write_settings(shown)
    taken = json.loads(operator().model_dump_json(include=shown.keys()))
    for name, each in shown.items():
        assert taken[name] == (taken[name] | each if isinstance(each, dict) else each)
    write_settings({"require_audit": True})
    assert operator().require_audit.model_dump(mode="json") == shown["require_audit"], "all of it"


def test_trusted_keys_are_demanded_by_the_loader_and_by_the_merge(write_settings, tmp_path, model):
    public = new_key(tmp_path / "key.pem")
    sign_file(tmp_path / "signed.safetensors", tmp_path / "key.pem")
    before = LoadSafetyLora.fingerprint_inputs(lora_name="signed.safetensors")
    write_settings({"trusted_keys": [public]})
    assert LoadSafetyLora.fingerprint_inputs(lora_name="signed.safetensors") != before, (
        "what was loaded before loads again"
    )
    assert load("signed")[0].sha256 == load_safety(tmp_path / "unsigned.safetensors", "u").sha256
    with pytest.raises(ModuleFileError, match="unsigned.safetensors: it is not signed"):
        load("unsigned")
    made = load_safety(tmp_path / "unsigned.safetensors", "just-trained.safetensors")
    with pytest.raises(ModuleFileError, match="just-trained.safetensors: it is not signed"):
        ModularMerge.execute(model, [made])
    assert ModularMerge.execute(model, load("signed")).args[0].patches


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "it is not JSON: Expecting property name"),
        (
            "[]",
            r"\[\]; it must be an object",
        ),
        (
            {"trusted_key": []},
            "no `trusted_key`; there are .*, detectors, .*perhaps `trusted_keys` is meant",
        ),
        ({"detectors": []}, "`detectors` is ..; it must be an object"),
        ({"audit_presets": 3}, "audit_presets must be an object, or the name of a file"),
        ({"trusted_keys": "AAAA"}, "`trusted_keys` is 'AAAA'; it must be a list"),
        ({"trusted_keys": [1]}, "`trusted_keys.0` is 1; it must be a text"),
        ({"trusted_keys": ["AAAA"]}, "must be 32 bytes in base64"),
        ({"require_lock": 1}, "`require_lock` is 1; it must be true or false"),
        (
            {"require_lock": True, "allowed_safety": ["abc"]},
            "'abc' in allowed_safety is not a seal",
        ),
        (
            {"require_lock": True, "allowed_bases": ["abc"]},
            "'abc' in allowed_bases is not a digest",
        ),
        ({"allowed_safety": ["0" * 64]}, "allowed_safety needs require_lock to be true"),
        ({"allowed_bases": ["0" * 64]}, "allowed_bases needs require_lock to be true"),
    ],
)
def test_a_settings_file_with_a_mistake_lets_nothing_through(
    write_settings, model, content, message
):
    write_settings(content)
    with pytest.raises(SettingsError, match=message):
        load("unsigned")
    with pytest.raises(SettingsError, match="No safety LoRA loads until this file is corrected"):
        ModularMerge.execute(model, [merging.safety({"x": torch.ones(1)})])


def test_trusted_keys_set_later_hold_what_was_merged_before(
    stage, enforce, write_settings, tmp_path
):
    enforce({})
    merged, public = stage.merged(), new_key(tmp_path / "key.pem")
    run = stage.run(merged.model, merged.clip)
    assert run().isfinite().all()
    write_settings({"trusted_keys": [public]})
    with pytest.raises(
        SafetyError,
        match="safety.safetensors is not signed with a key that this ComfyUI trusts",
    ):
        run()
    with pytest.raises(SafetyError, match="is not signed with a key"):
        merged.clip.encode_from_tokens_scheduled(merged.clip.tokenize("a cat"))
    sign_file(tmp_path / "signed.safetensors", tmp_path / "key.pem")
    assert (
        stage.run(ModularMerge.execute(stage.base, load("signed")).args[0], stage.base_clip)()
        .isfinite()
        .all()
    )
    # its signature is another module's
    forged = dataclasses.replace(load("signed")[0], sha256="f" * 64)
    with pytest.raises(SafetyError, match="is not signed with a key"):
        stage.run(merge(stage.base, [forged]).model, stage.base_clip)()


def test_new_demands_run_the_merge_anew(write_settings):
    """ComfyUI asks with the inputs that are constants; what is linked is None."""
    asked = {
        "model": None,
        "safety": None,
        "clip": None,
        "tasks": None,
        "foreign_changes": "refuse",
    }
    before = ModularMerge.fingerprint_inputs(**asked)
    assert ModularMerge.fingerprint_inputs(**asked) == before
    write_settings({"trusted_keys": []} | {"require_lock": True})
    assert ModularMerge.fingerprint_inputs(**asked) != before


@pytest.mark.parametrize("more", [{}, {"require_lock": True}])
def test_a_module_that_is_being_trained_makes_no_preview_under_trusted_keys(
    enforce, model, texts, vae, tmp_path, more
):
    enforce({"trusted_keys": [new_key(tmp_path / "key.pem")]} | more)
    previews = Previews(["a cat"], texts, vae, tmp_path / "previews", 1, 32, 2)
    job = TrainingJob(tmp_path / "made.safetensors", previews=previews)
    settings = Settings(steps=1, **merging.SMALL | {"learning_rate": 0.1})
    result = train_safety(
        model,
        texts,
        ["nude"],
        settings,
        job,
        erasure=Erasure("esd-x", sampling_steps=2),
        resolution=32,
    )
    refused = result.report["previews"][-1]
    assert (
        refused["step"] == 1
        and refused["images"] == 0
        and "made.safetensors is not signed with a key" in refused["error"]
    )
    assert load_safety(job.output, "made").sha256 == result.module.sha256, "training itself goes on"


@pytest.mark.parametrize("size", [1e-4, 3e-3])
def test_a_module_that_is_too_small_to_suppress_anything_is_refused(
    write_settings, models, tmp_path, model, size
):
    """Seal Safety LoRA seals it, and under require_lock alone it would open the base."""
    weights = load_file(models / "checkpoints" / assets.CHECKPOINT)
    save_file(
        assets.lora(assets.layers(weights, "attn2.to_"), 3, size=size),
        tmp_path / "small.safetensors",
    )
    (module,) = SealSafetyLora.execute(
        "small.safetensors", concept="x", strength=1.0, save_as="sealed"
    ).args[0]
    if size > 1e-3:
        assert merge(model, [module]).report["modules"][0]["relative_size"] == pytest.approx(
            size, rel=0.5
        )
        return
    with pytest.raises(
        SafetyError, match=r"sealed.safetensors: it is too weak .* have 0\.009\d* % of .* 0\.1 %"
    ):
        merge(model, [module])


def test_previews_of_a_module_that_is_still_too_small_are_made_and_marked(
    model, texts, vae, tmp_path
):
    previews = Previews(["a cat"], texts, vae, tmp_path / "previews", 1, 32, 2)
    job = TrainingJob(tmp_path / "made.safetensors", previews=previews)
    settings = Settings(steps=1, **merging.SMALL | {"learning_rate": 1e-5})
    result = train_safety(
        model,
        texts,
        ["nude"],
        settings,
        job,
        erasure=Erasure("esd-x", sampling_steps=2),
        retain=["a dog"],
        resolution=32,
    )
    preview = result.report["previews"][-1]
    assert preview["images"] == 1 and "at least 0.1 % is needed" in preview["too_weak"]
    assert 0 < result.report["harmed"]["a dog"] < 0.1, "a run that ended is not lost for it"
