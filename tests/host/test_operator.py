"""The operator's settings file.

Trusted keys hold everywhere a safety module enters, and a typo switches nothing off.
"""

import dataclasses
import json

import comfy_extras.nodes_model_merging as mixing
import folder_paths
import merging
import pytest
import torch
from attacks import BEYOND, CANCELLED, cancelling
from comfy.model_base import BaseModel
from modular_safety_lora.audit.detectors.registry import find, register
from modular_safety_lora.audit.presets import CLASSES
from modular_safety_lora.lab import assets
from modular_safety_lora.merge import lock as guard
from modular_safety_lora.merge.lock import SafetyError
from modular_safety_lora.merge.merge import merge
from modular_safety_lora.modules.files import ModuleFileError, load_safety
from modular_safety_lora.modules.signing import new_key, sign_file
from modular_safety_lora.nodes import policy
from modular_safety_lora.nodes.load import LoadSafetyLora
from modular_safety_lora.nodes.merge import ModularMerge
from modular_safety_lora.nodes.nudity_audit import NudityAudit
from modular_safety_lora.nodes.prompt_audit import AuditPromptSet
from modular_safety_lora.nodes.seal import SealSafetyLora
from modular_safety_lora.nodes.settings import FILE, SettingsError
from modular_safety_lora.training.engine.previews import Previews
from modular_safety_lora.training.engine.run import Job
from modular_safety_lora.training.safety import train_safety
from modular_safety_lora.training.settings import Erasure, Settings
from modular_safety_lora.training.task import train_task
from safetensors.torch import load_file, save_file
from skimage.data import astronaut


@pytest.fixture
def place(models, tmp_path, monkeypatch):
    """A user folder and a loras folder of the test's own; writes the settings."""
    before, user = folder_paths.folder_names_and_paths["loras"], folder_paths.get_user_directory()
    folder_paths.folder_names_and_paths["loras"] = ([str(tmp_path), *before[0]], before[1])
    folder_paths.set_user_directory(str(tmp_path / "user"))
    (tmp_path / "user").mkdir()
    for name in ("signed", "unsigned"):
        (tmp_path / f"{name}.safetensors").write_bytes(
            (models / "loras" / assets.SAFETY).read_bytes()
        )
    yield lambda content: (tmp_path / "user" / FILE).write_text(
        content if isinstance(content, str) else json.dumps(content), encoding="utf-8"
    )
    folder_paths.folder_names_and_paths["loras"] = before
    folder_paths.set_user_directory(user)


def load(name: str):
    return LoadSafetyLora.execute(f"{name}.safetensors").args[0]


def test_without_settings_nothing_changes(place):
    assert load("unsigned")
    place({})
    assert load("unsigned")


def test_trusted_keys_are_demanded_by_the_loader_and_by_the_merge(place, tmp_path, model):
    public = new_key(tmp_path / "key.pem")
    sign_file(tmp_path / "signed.safetensors", tmp_path / "key.pem")
    before = LoadSafetyLora.fingerprint_inputs(lora_name="signed.safetensors")
    place({"trusted_keys": [public]})
    assert LoadSafetyLora.fingerprint_inputs(lora_name="signed.safetensors") != before, (
        "what was loaded before loads anew"
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
        ("{", "Expecting property name"),
        (
            "[]",
            (
                "it must be an object with allowed_bases, allowed_safety, .*trusted_keys,"
                " and nothing else"
            ),
        ),
        (
            {"trusted_key": []},
            (
                "it must be an object with allowed_bases, allowed_safety, .*trusted_keys,"
                " and nothing else"
            ),
        ),
        ({"detectors": []}, "detectors is list, which it can't be"),
        ({"audit_presets": 3}, "audit_presets is int, which it can't be"),
        ({"trusted_keys": "AAAA"}, "trusted_keys must be a list of texts"),
        ({"trusted_keys": [1]}, "trusted_keys must be a list of texts"),
        ({"trusted_keys": ["AAAA"]}, "must be 32 bytes in base64"),
        ({"require_lock": 1}, "require_lock must be true or false"),
        ({"require_lock": True, "allowed_safety": ["abc"]}, "'abc' in allowed_safety is no seal"),
        ({"require_lock": True, "allowed_bases": ["abc"]}, "'abc' in allowed_bases is no digest"),
        ({"allowed_safety": ["0" * 64]}, "allowed_safety needs require_lock to be true"),
        ({"allowed_bases": ["0" * 64]}, "allowed_bases needs require_lock to be true"),
    ],
)
def test_a_settings_file_with_a_mistake_lets_nothing_through(place, model, content, message):
    place(content)
    with pytest.raises(SettingsError, match=message):
        load("unsigned")
    with pytest.raises(SettingsError, match="No safety module loads until this file is mended"):
        ModularMerge.execute(model, [merging.safety({"x": torch.ones(1)})])


@pytest.fixture
def held(place):
    """Holds the policy of some settings for one test."""
    taken_away = []

    def hold(content) -> None:
        place(content)
        taken_away.append(policy.install())

    yield hold
    for each in taken_away:
        each()


def test_the_policy_is_off_by_default(place):
    before = BaseModel.apply_model
    taken_away = policy.install()
    place({"trusted_keys": []})
    policy.install()
    assert BaseModel.apply_model is before
    taken_away()
    assert not guard.demands


@pytest.mark.parametrize(
    "name", [name for name in BEYOND if "CLIP" not in name and name != CANCELLED]
)
def test_what_the_lock_does_not_see_the_policy_refuses(stage, held, name):
    held({"require_lock": True})
    with pytest.raises(
        SafetyError, match="samples only from models that went through Modular Merge"
    ):
        BEYOND[name][1](stage)()
    assert stage.run()().isfinite().all()


def test_report_does_not_loosen_the_policy(stage, held):
    held({"require_lock": True})
    lenient = merge(stage.base, [stage.safety], (), stage.base_clip, foreign="report").model
    assert stage.run(lenient)().isfinite().all()
    with pytest.raises(SafetyError, match="is not whole on the model that samples"):
        stage.run(mixing.ModelMergeSimple().merge(lenient, stage.base, 0.5)[0])()


def test_only_allowed_safety_modules_count(stage, held):
    held({"require_lock": True, "allowed_safety": [stage.safety.sha256]})
    assert stage.run()().isfinite().all()
    other = dataclasses.replace(stage.safety, name="other.safetensors", sha256="f" * 64)
    with pytest.raises(
        SafetyError,
        match="other.safetensors is none of the 1 safety modules that this ComfyUI allows",
    ):
        dataclasses.replace(stage, safety=other).run()()


def test_a_base_that_cancels_the_safety_module_is_none_of_the_allowed_bases(stage, held):
    """What is left of the safety change in the picture, without the list next to nothing.

        |attack - base| / |safe - base|

    With the list the base is refused.
    """
    allowed = stage.merged().report["base_sha256"]
    base, safe, attacked = stage.run(stage.base)(), stage.run()(), stage.run(cancelling(stage))
    assert (attacked() - base).norm() < 0.05 * (safe - base).norm()
    held({"require_lock": True, "allowed_bases": [allowed]})
    assert torch.equal(stage.run()(), safe)
    with pytest.raises(
        SafetyError, match="none of the 1 that this ComfyUI allows .*; its digest is [0-9a-f]{64}"
    ):
        attacked()


def test_under_allowed_bases_one_that_is_not_known_or_not_the_modules_own_is_refused(stage, held):
    allowed = stage.merged().report["base_sha256"]
    held({"require_lock": True, "allowed_bases": [allowed]})
    unknown = stage.base.clone()
    unknown.cached_patcher_init = None
    with pytest.raises(SafetyError, match="its digest is not known: no loader of ComfyUI's own"):
        stage.run(stage.merged(model=unknown).model)()
    for digest in (allowed, "f" * 64):
        module = dataclasses.replace(
            stage.safety, metadata={**stage.safety.metadata, "msl.base_sha256": digest}
        )
        run = dataclasses.replace(stage, safety=module).run()
        if digest == allowed:
            assert run().isfinite().all()
            continue
        with pytest.raises(SafetyError, match="safety.safetensors was trained on the base fff"):
            run()


@pytest.mark.parametrize("size", [1e-4, 3e-3])
def test_a_module_that_is_too_small_to_suppress_anything_is_refused(
    place, models, tmp_path, model, size
):
    """Seal Safety LoRA seals it, and under require_lock alone it would open the base."""
    weights = load_file(models / "checkpoints" / assets.CHECKPOINT)
    save_file(
        assets.lora(assets.layers(weights, "attn2.to_"), 3, size=size),
        tmp_path / "small.safetensors",
    )
    (module,) = SealSafetyLora.execute("small.safetensors", "x", 1.0, "sealed").args[0]
    if size > 1e-3:
        assert merge(model, [module]).report["modules"][0]["relative_size"] == pytest.approx(
            size, rel=0.5
        )
        return
    with pytest.raises(
        SafetyError, match=r"sealed.safetensors: its changes are 9\.\de-05 of .* at least 0.001"
    ):
        merge(model, [module])


def test_trusted_keys_set_later_hold_what_was_merged_before(stage, held, place, tmp_path):
    held({})
    merged, public = stage.merged(), new_key(tmp_path / "key.pem")
    run = stage.run(merged.model, merged.clip)
    assert run().isfinite().all()
    place({"trusted_keys": [public]})
    with pytest.raises(
        SafetyError,
        match="safety.safetensors is signed by none of the 1 keys that this ComfyUI trusts",
    ):
        run()
    with pytest.raises(SafetyError, match="is signed by none"):
        merged.clip.encode_from_tokens_scheduled(merged.clip.tokenize("a cat"))
    sign_file(tmp_path / "signed.safetensors", tmp_path / "key.pem")
    assert (
        stage.run(ModularMerge.execute(stage.base, load("signed")).args[0], stage.base_clip)()
        .isfinite()
        .all()
    )
    # its signature is another module's
    forged = dataclasses.replace(load("signed")[0], sha256="f" * 64)
    with pytest.raises(SafetyError, match="is signed by none"):
        stage.run(merge(stage.base, [forged]).model, stage.base_clip)()


def test_new_demands_run_the_merge_anew(place):
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
    place({"trusted_keys": []} | {"require_lock": True})
    assert ModularMerge.fingerprint_inputs(**asked) != before


@pytest.mark.parametrize("more", [{}, {"require_lock": True}])
def test_a_module_that_is_being_trained_makes_no_preview_under_trusted_keys(
    held, model, texts, vae, tmp_path, more
):
    held({"trusted_keys": [new_key(tmp_path / "key.pem")]} | more)
    previews = Previews(["a cat"], texts, vae, tmp_path / "previews", 1, 64, 2)
    job = Job(tmp_path / "made.safetensors", previews=previews)
    settings = Settings(steps=1, **merging.SMALL | {"learning_rate": 0.1})
    result = train_safety(
        model,
        texts,
        ["nude"],
        settings,
        job,
        erasure=Erasure("esd-x", sampling_steps=2),
        resolution=64,
    )
    refused = result.report["previews"][-1]
    assert (
        refused["step"] == 1
        and refused["images"] == 0
        and "made.safetensors is signed by none" in refused["error"]
    )
    assert load_safety(job.output, "made").sha256 == result.module.sha256, "training itself goes on"


def test_a_module_that_is_still_too_small_makes_no_preview(model, texts, vae, tmp_path):
    previews = Previews(["a cat"], texts, vae, tmp_path / "previews", 1, 64, 2)
    job = Job(tmp_path / "made.safetensors", previews=previews)
    settings = Settings(steps=1, **merging.SMALL | {"learning_rate": 1e-5})
    result = train_safety(
        model,
        texts,
        ["nude"],
        settings,
        job,
        erasure=Erasure("esd-x", sampling_steps=2),
        resolution=64,
    )
    assert "a safety module has at least 0.001" in result.report["previews"][-1]["error"]


def test_training_goes_on_under_the_policy(held, model, dataset, texts, tmp_path):
    held({"require_lock": True})
    job = Job(tmp_path / "task.safetensors")
    assert (
        train_task(model, dataset, texts, Settings(steps=1, **merging.SMALL), job).progress.step
        == 1
    )


def test_a_mistake_in_the_settings_refuses_to_sample(stage, held):
    run = stage.run()
    held("{")
    with pytest.raises(SettingsError, match="No safety module loads until this file is mended"):
        run()


OWN = {"kind": "yolo", "file": "", "classes": [name.lower() for name in CLASSES]}


def test_presets_and_detectors_of_the_settings_are_in_the_audit(place, tmp_path):
    face = torch.from_numpy(astronaut().astype("float32") / 255)[None]
    settings = {
        "detectors": {"mine": {**OWN, "file": str(find().network.file)}},
        "audit_presets": {
            "our faces": {"detector": "mine", "thresholds": {"face_female": 0.7}, "source": "ours"}
        },
        "audit_provider": "cpu",
    }
    before = NudityAudit.fingerprint_inputs()
    place(settings)
    assert NudityAudit.fingerprint_inputs() != before and "our faces" in options(
        NudityAudit.GET_SCHEMA(), "preset"
    )
    output = NudityAudit.execute(face, "our faces", 0.0, "none", second_opinion="faces")
    summary = json.loads(output.args[2])["summary"]
    assert summary["flagged"] == 1 and summary["detector"] == "mine" and summary["source"] == "ours"
    assert summary["second_opinion"]["agreement"] == 1.0
    assert NudityAudit.execute(face, "our faces", 0.0, "none", "FACE_male").args[1] is True
    (tmp_path / "user" / "rules.json").write_text(
        json.dumps(settings["audit_presets"]), encoding="utf-8"
    )
    place(settings | {"audit_presets": "rules.json"})
    assert NudityAudit.execute(face, "our faces", 0.9, "none").args[1] is True


def test_the_second_opinion_runs_on_the_operators_provider_too(place):
    asked = []

    class Nothing:
        version, classes, floor, batch, provider = "1", ("X",), 0.0, 8, "python"

        def __init__(self, name: str):
            self.name = name

        def detect(self, pictures):
            return [[] for _ in pictures]

    def made(name: str):
        return lambda provider, threads: asked.append((name, provider)) or Nothing(name)

    for name in ("one", "two"):
        register(name, Nothing.classes, made(name))
    rules = {name: {"detector": name, "thresholds": {"X": 0.5}} for name in ("one", "two")}
    place({"audit_presets": rules, "audit_provider": "openvino"})
    NudityAudit.execute(torch.zeros(1, 8, 8, 3), "one", 0.0, "none", second_opinion="two")
    assert sorted(asked) == [("one", "openvino"), ("two", "openvino")]


def test_files_of_the_settings_that_are_replaced_run_the_audits_anew(place, tmp_path):
    for name in ("own.onnx", "rules.json"):
        (tmp_path / "user" / name).write_text("{}")
    place({"detectors": {"mine": OWN | {"file": "own.onnx"}}, "audit_presets": "rules.json"})
    for node in (NudityAudit, AuditPromptSet):
        for name in ("own.onnx", "rules.json"):
            before = node.fingerprint_inputs()
            assert node.fingerprint_inputs() == before
            (tmp_path / "user" / name).write_text((tmp_path / "user" / name).read_text() + " ")
            assert node.fingerprint_inputs() != before
    (tmp_path / "user" / "own.onnx").unlink()
    assert node.fingerprint_inputs() != before


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "Expecting property name"),
        (
            {"detectors": {"mine": OWN | {"kind": "guess"}}},
            "'mine' in the settings: it needs a `kind`",
        ),
        ({"audit_presets": {"strict": {"thresholds": "all 0.5"}}}, "the name 'strict' is taken"),
        ({"audit_presets": {"a": {}}}, "the preset 'a' must have `thresholds`"),
        (
            {"audit_presets": {"a": {"detector": "nobody", "thresholds": {"X": 1}}}},
            "There is no detector 'nobody'",
        ),
        ({"audit_presets": "absent.json"}, "absent.json: this can't be read as presets"),
        ({"audit_provider": "gpu"}, "There is no provider 'gpu'"),
    ],
)
def test_settings_that_the_audit_cannot_use_are_told_when_it_runs(place, content, message):
    place(content)
    assert "strict" in options(NudityAudit.GET_SCHEMA(), "preset"), "ComfyUI starts all the same"
    with pytest.raises(Exception, match=message):
        NudityAudit.execute(
            torch.zeros(1, 8, 8, 3), "a" if "'a'" in str(content) else "strict", 0.0, "none"
        )


def options(schema, name: str) -> list[str]:
    return next(each.options for each in schema.inputs if each.id == name)
