"""The operator's demand for the lock: nothing samples without it, nor on a base not allowed."""

import dataclasses
from pathlib import Path

import comfy.sd
import comfy_extras.nodes_model_merging as mixing
import folder_paths
import merging
import pytest
import torch
from attack_parts import cancelling, cancelling_file, left_behind
from attack_stage import encoded
from attacks import BEYOND, CANCELLED
from comfy.model_base import BaseModel
from modular_safety_lora.host import bases
from modular_safety_lora.merge import lock
from modular_safety_lora.merge.merge import Merged, merge
from modular_safety_lora.modules.errors import SafetyError
from modular_safety_lora.nodes import policy
from modular_safety_lora.nodes.settings import SettingsError
from modular_safety_lora.training.engine.job import TrainingJob
from modular_safety_lora.training.settings import Settings
from modular_safety_lora.training.task import train_task
from safetensors.torch import load_file, save_file


@pytest.fixture(scope="module")
def stage(stage):
    """One merge and its texts, but where a test makes another."""
    return dataclasses.replace(stage, kept={})


def reloaded(stage):
    """The stage with its base loaded again, for a policy that asks what was read."""
    path = folder_paths.get_full_path("checkpoints", stage.checkpoint)
    read = comfy.sd.load_checkpoint_guess_config(path, output_vae=False, output_clip=False)[0]
    return dataclasses.replace(stage, base=read, kept={"texts": stage.kept["texts"]})


def test_the_policy_is_off_by_default(write_settings):
    before = BaseModel.apply_model
    taken_away = policy.install()
    write_settings({"trusted_keys": []})
    policy.install()
    assert BaseModel.apply_model is before
    taken_away()
    assert not lock.operator_checks


@pytest.mark.parametrize(
    "name", [name for name in BEYOND if "CLIP" not in name and name != CANCELLED]
)
def test_what_the_lock_does_not_see_the_policy_refuses(stage, enforce, name):
    enforce({"require_lock": True})
    with pytest.raises(
        SafetyError, match="samples only from models that went through Modular Merge"
    ):
        BEYOND[name][1](stage)()
    assert stage.run()().isfinite().all()


def test_report_does_not_loosen_the_policy(stage, enforce):
    enforce({"require_lock": True})
    lenient = merge(stage.base, [stage.safety], (), stage.base_clip, foreign="report").model
    assert stage.run(lenient)().isfinite().all()
    with pytest.raises(SafetyError, match="is not whole on the model that samples"):
        stage.run(mixing.ModelMergeSimple().merge(lenient, stage.base, 0.5)[0])()


def test_weights_that_are_unloaded_between_two_steps_end_the_sampling(stage, enforce):
    unloading = stage.locked.clone()

    def unload(args):
        unloading.detach()
        return args["denoised"]

    unloading.set_model_sampler_post_cfg_function(unload)
    run = stage.run(unloading)
    assert run().isfinite().all()  # without the setting nobody asks
    enforce({"require_lock": True})
    with pytest.raises(SafetyError, match="is missing from the loaded weights"):
        run()


def test_a_bypass_that_was_left_on_the_network_is_refused_under_report_too(stage, enforce):
    lenient = merge(stage.base, [stage.safety], (), stage.base_clip, foreign="report").model
    kept = {"merge": Merged(lenient, None, {}), "texts": encoded(stage.base_clip)}
    run = left_behind(dataclasses.replace(stage, kept=kept))
    enforce({"require_lock": True})
    with pytest.raises(SafetyError, match="code left on the network in diffusion_model"):
        run()


def test_only_allowed_safety_modules_count(stage, enforce):
    enforce({"require_lock": True, "allowed_safety": [stage.safety.sha256]})
    assert stage.run(stage.merged().model)().isfinite().all()
    other = dataclasses.replace(stage.safety, name="other.safetensors", sha256="f" * 64)
    with pytest.raises(
        SafetyError,
        match="other.safetensors is not on this ComfyUI's list of allowed safety LoRAs",
    ):
        dataclasses.replace(stage, safety=other, kept={}).run()()


def test_a_base_that_cancels_the_safety_module_is_none_of_the_allowed_bases(stage, enforce):
    """What is left of the safety change in the picture, without the list next to nothing.

        |attack - base| / |safe - base|

    With the list the base is refused.
    """
    allowed = stage.merged().report["base_sha256"]
    base, safe, attacked = stage.run(stage.base)(), stage.run()(), stage.run(cancelling(stage))
    assert (attacked() - base).norm() < 0.05 * (safe - base).norm()
    enforce({"require_lock": True, "allowed_bases": [allowed]})
    assert torch.equal(reloaded(stage).run()(), safe)
    with pytest.raises(
        SafetyError,
        match="not on this ComfyUI's list of allowed bases .*; its digest begins with [0-9a-f]{12}",
    ):
        attacked()


def test_a_base_with_a_decoy_beside_it_is_none_of_the_allowed_bases(stage, enforce, tmp_path):
    """An allowed base's weights lie in the file, and more weights under a name that the host reads.

    What it then loads is the base that cancels the safety module.
    """
    allowed, prefix = stage.plain.report["base_sha256"], bases.PREFIXES[0]
    decoy = load_file(folder_paths.get_full_path("checkpoints", stage.checkpoint))
    for name, value in load_file(cancelling_file(stage, tmp_path)).items():
        decoy[name.replace(prefix, "net.")] = value
    save_file(decoy | {"net.more": torch.ones(1)}, tmp_path / "decoy.safetensors")
    enforce({"require_lock": True, "allowed_bases": [allowed]})
    model = comfy.sd.load_diffusion_model(str(tmp_path / "decoy.safetensors"))
    with pytest.raises(
        SafetyError, match="its digest is not known: decoy.* contains 2 diffusion models"
    ):
        stage.run(stage.merged(model=model).model)()


def test_a_base_that_was_replaced_after_it_was_loaded_is_none_of_them(stage, enforce, tmp_path):
    allowed = stage.plain.report["base_sha256"]
    file = cancelling_file(stage, tmp_path)
    genuine = Path(folder_paths.get_full_path("checkpoints", stage.checkpoint))
    enforce({"require_lock": True, "allowed_bases": [allowed]})
    attacked = comfy.sd.load_diffusion_model(str(file))
    file.write_bytes(genuine.read_bytes())
    with pytest.raises(SafetyError, match="base_00001_.safetensors was replaced after it was loa"):
        stage.run(stage.merged(model=attacked).model)()
    again = comfy.sd.load_diffusion_model(str(file))
    (tmp_path / "link.safetensors").hardlink_to(file)
    file.chmod(0o640)  # its content stays what was loaded
    merged = stage.merged(model=again).model
    assert stage.run(merged)().isfinite().all()
    (tmp_path / "other").mkdir()
    file.write_bytes(cancelling_file(stage, tmp_path / "other").read_bytes())
    elsewhere = merged.deepclone_multigpu(new_load_device=torch.device("cpu"))
    with pytest.raises(SafetyError, match="was replaced and loaded again"):
        stage.run(elsewhere)()


def test_under_allowed_bases_one_that_is_not_known_or_not_the_modules_own_is_refused(
    stage, enforce
):
    allowed = stage.plain.report["base_sha256"]
    enforce({"require_lock": True, "allowed_bases": [allowed]})
    with pytest.raises(
        SafetyError, match="its digest is not known: it was not loaded from one file"
    ):
        stage.run(stage.merged().model)()  # read before anybody watched
    stage = reloaded(stage)
    for digest in (allowed, "f" * 64):
        module = dataclasses.replace(
            stage.safety, metadata={**stage.safety.metadata, "msl.base_sha256": digest}
        )
        run = dataclasses.replace(stage, safety=module, kept={}).run()
        if digest == allowed:
            assert run().isfinite().all()
            continue
        with pytest.raises(SafetyError, match="safety.safetensors was made for another base"):
            run()


def test_training_goes_on_under_the_policy(enforce, model, dataset, texts, tmp_path):
    enforce({"require_lock": True})
    job = TrainingJob(tmp_path / "task.safetensors")
    assert (
        train_task(model, dataset, texts, Settings(steps=1, **merging.SMALL), job).progress.step
        == 1
    )


def test_a_mistake_in_the_settings_refuses_to_sample(stage, enforce):
    run = stage.run()
    enforce("{")
    with pytest.raises(SettingsError, match="No safety LoRA loads until this file is corrected"):
        run()
