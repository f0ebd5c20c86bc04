"""The operator's settings file: trusted keys hold everywhere a safety module enters, and a typo switches nothing off."""

import dataclasses
import json

import comfy_extras.nodes_model_merging as mixing
import folder_paths
import merging
import pytest
import torch
from attacks import BEYOND
from comfy.model_base import BaseModel
from modular_safety_lora.audit.detectors import find, register
from modular_safety_lora.audit.presets import CLASSES
from modular_safety_lora.demo import assets
from modular_safety_lora.modular.files import ModuleFileError, load_safety
from modular_safety_lora.modular.guard import SafetyError
from modular_safety_lora.modular.merge import merge
from modular_safety_lora.modular.signing import new_key, sign_file
from modular_safety_lora.nodes import policy
from modular_safety_lora.nodes.load import LoadSafetyLora
from modular_safety_lora.nodes.merge import ModularMerge
from modular_safety_lora.nodes.nudity_audit import NudityAudit
from modular_safety_lora.nodes.prompt_audit import AuditPromptSet
from modular_safety_lora.nodes.settings import FILE, SettingsError
from modular_safety_lora.training.run import Job
from modular_safety_lora.training.settings import Settings
from modular_safety_lora.training.task import train_task
from skimage.data import astronaut


@pytest.fixture
def place(models, tmp_path, monkeypatch):
    """A user folder and a loras folder of the test's own; writes the settings."""
    before, user = folder_paths.folder_names_and_paths["loras"], folder_paths.get_user_directory()
    folder_paths.folder_names_and_paths["loras"] = ([str(tmp_path)], before[1])
    folder_paths.set_user_directory(str(tmp_path / "user"))
    (tmp_path / "user").mkdir()
    for name in ("signed", "unsigned"):
        (tmp_path / f"{name}.safetensors").write_bytes((models / "loras" / assets.SAFETY).read_bytes())
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
    assert LoadSafetyLora.fingerprint_inputs(lora_name="signed.safetensors") != before, "what was loaded before loads anew"
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
            "it must be an object with allowed_safety, audit_presets, .*trusted_keys, and nothing else",
        ),
        (
            {"trusted_key": []},
            "it must be an object with allowed_safety, audit_presets, .*trusted_keys, and nothing else",
        ),
        ({"detectors": []}, "detectors is list, which it can't be"),
        ({"audit_presets": 3}, "audit_presets is int, which it can't be"),
        ({"trusted_keys": "AAAA"}, "trusted_keys must be a list of texts"),
        ({"trusted_keys": [1]}, "trusted_keys must be a list of texts"),
        ({"trusted_keys": ["AAAA"]}, "must be 32 bytes in base64"),
        ({"require_lock": 1}, "require_lock must be true or false"),
        ({"require_lock": True, "allowed_safety": ["abc"]}, "'abc' in allowed_safety is no seal"),
        ({"allowed_safety": ["0" * 64]}, "allowed_safety needs require_lock to be true"),
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
    policy.install()
    place({"trusted_keys": []})
    policy.install()
    assert BaseModel.apply_model is before


@pytest.mark.parametrize("name", [name for name in BEYOND if "CLIP" not in name])
def test_what_the_lock_does_not_see_the_policy_refuses(stage, held, name):
    held({"require_lock": True})
    with pytest.raises(SafetyError, match="samples only from models that went through Modular Merge"):
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
    with pytest.raises(SafetyError, match="other.safetensors is none of the 1 safety modules that this ComfyUI allows"):
        dataclasses.replace(stage, safety=other).run()()


def test_training_goes_on_under_the_policy(held, model, dataset, texts, tmp_path):
    held({"require_lock": True})
    job = Job(tmp_path / "task.safetensors")
    assert train_task(model, dataset, texts, Settings(steps=1, **merging.SMALL), job).progress.step == 1


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
        "audit_presets": {"our faces": {"detector": "mine", "thresholds": {"face_female": 0.7}, "source": "ours"}},
        "audit_provider": "cpu",
    }
    before = NudityAudit.fingerprint_inputs()
    place(settings)
    assert NudityAudit.fingerprint_inputs() != before and "our faces" in options(NudityAudit.GET_SCHEMA(), "preset")
    output = NudityAudit.execute(face, "our faces", 0.0, "none", second_opinion="faces")
    summary = json.loads(output.args[2])["summary"]
    assert summary["flagged"] == 1 and summary["detector"] == "mine" and summary["source"] == "ours"
    assert summary["second_opinion"]["agreement"] == 1.0
    assert NudityAudit.execute(face, "our faces", 0.0, "none", "FACE_male").args[1] is True
    (tmp_path / "user" / "rules.json").write_text(json.dumps(settings["audit_presets"]), encoding="utf-8")
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
        ({"detectors": {"mine": OWN | {"kind": "guess"}}}, "'mine' in the settings: it needs a `kind`"),
        ({"audit_presets": {"strict": {"thresholds": "all 0.5"}}}, "the name 'strict' is taken"),
        ({"audit_presets": {"a": {}}}, "the preset 'a' must have `thresholds`"),
        ({"audit_presets": {"a": {"detector": "nobody", "thresholds": {"X": 1}}}}, "There is no detector 'nobody'"),
        ({"audit_presets": "absent.json"}, "absent.json: this can't be read as presets"),
        ({"audit_provider": "gpu"}, "There is no provider 'gpu'"),
    ],
)
def test_settings_that_the_audit_cannot_use_are_told_when_it_runs(place, content, message):
    place(content)
    assert "strict" in options(NudityAudit.GET_SCHEMA(), "preset"), "ComfyUI starts all the same"
    with pytest.raises(Exception, match=message):
        NudityAudit.execute(torch.zeros(1, 8, 8, 3), "a" if "'a'" in str(content) else "strict", 0.0, "none")


def options(schema, name: str) -> list[str]:
    return next(each.options for each in schema.inputs if each.id == name)
