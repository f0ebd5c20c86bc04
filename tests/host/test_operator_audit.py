"""The operator's presets, detectors and provider are in the audits, and mistakes are told there."""

import json

import pytest
import torch
from modular_safety_lora.audit.detectors.registry import find, register
from modular_safety_lora.audit.presets import CLASSES
from modular_safety_lora.nodes.nudity_audit import NudityAudit
from modular_safety_lora.nodes.prompt_audit import AuditPromptSet
from skimage.data import astronaut

OWN = {"kind": "yolo", "file": "", "classes": [name.lower() for name in CLASSES]}


def options(schema, name: str) -> list[str]:
    return next(each.options for each in schema.inputs if each.id == name)


def test_presets_and_detectors_of_the_settings_are_in_the_audit(write_settings, tmp_path):
    face = torch.from_numpy(astronaut().astype("float32") / 255)[None]
    settings = {
        "detectors": {"mine": {**OWN, "file": str(find().network.file)}},
        "audit_presets": {
            "our faces": {"detector": "mine", "thresholds": {"face_female": 0.7}, "source": "ours"}
        },
        "audit_provider": "cpu",
    }
    before = NudityAudit.fingerprint_inputs()
    write_settings(settings)
    assert NudityAudit.fingerprint_inputs() != before and "our faces" in options(
        NudityAudit.GET_SCHEMA(), "preset"
    )
    output = NudityAudit.execute(
        face, preset="our faces", threshold=0.0, action="none", second_opinion="faces"
    )
    summary = json.loads(output.args[2])["summary"]
    assert summary["flagged"] == 1 and summary["detector"] == "mine" and summary["source"] == "ours"
    assert summary["second_opinion"]["agreement"] == 1.0
    assert (
        NudityAudit.execute(
            face, preset="our faces", threshold=0.0, action="none", classes="FACE_male"
        ).args[1]
        is True
    )
    (tmp_path / "user" / "rules.json").write_text(
        json.dumps(settings["audit_presets"]), encoding="utf-8"
    )
    write_settings(settings | {"audit_presets": "rules.json"})
    assert (
        NudityAudit.execute(face, preset="our faces", threshold=0.9, action="none").args[1] is True
    )


def test_the_second_opinion_runs_on_the_operators_provider_too(write_settings):
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
    write_settings({"audit_presets": rules, "audit_provider": "openvino"})
    NudityAudit.execute(
        torch.zeros(1, 8, 8, 3), preset="one", threshold=0.0, action="none", second_opinion="two"
    )
    assert sorted(asked) == [("one", "openvino"), ("two", "openvino")]


def test_files_of_the_settings_that_are_replaced_run_the_audits_anew(write_settings, tmp_path):
    for name in ("own.onnx", "rules.json"):
        (tmp_path / "user" / name).write_text("{}")
    write_settings(
        {"detectors": {"mine": OWN | {"file": "own.onnx"}}, "audit_presets": "rules.json"}
    )
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
        ("{", "it is not JSON"),
        (
            {"detectors": {"mine": OWN | {"kind": "guess"}}},
            "'mine' in the settings: it needs a `kind`",
        ),
        ({"audit_presets": {"strict": {"thresholds": "all 0.5"}}}, "the name 'strict' is taken"),
        ({"audit_presets": {"a": {}}}, "the preset 'a': `thresholds` is missing"),
        (
            {"audit_presets": {"a": {"detector": "nobody", "thresholds": {"X": 1}}}},
            "There is no detector 'nobody'",
        ),
        ({"audit_presets": "absent.json"}, "absent.json: the file of presets can't be read"),
        ({"audit_provider": "gpu"}, "There is no provider 'gpu'"),
    ],
)
def test_settings_that_the_audit_cannot_use_are_told_when_it_runs(write_settings, content, message):
    write_settings(content)
    assert "strict" in options(NudityAudit.GET_SCHEMA(), "preset"), "ComfyUI starts all the same"
    with pytest.raises(Exception, match=message):
        NudityAudit.execute(
            torch.zeros(1, 8, 8, 3),
            preset="a" if "'a'" in str(content) else "strict",
            threshold=0.0,
            action="none",
        )
