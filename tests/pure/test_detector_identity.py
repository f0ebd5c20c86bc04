"""What makes a detector another one: its file's content and each setting, not the file's name."""

import hashlib
import json
from importlib.metadata import version

import numpy as np
import pytest
from modular_safety_lora.audit.detectors import registry
from modular_safety_lora.audit.detectors.interface import identity_of
from modular_safety_lora.audit.presets import PRESETS
from modular_safety_lora.audit.rules import Rules
from modular_safety_lora.commands import main
from onnx_files import COLOURS, RED, REDS, SHAPE, network, replaced, rules
from PIL import Image


@pytest.mark.parametrize(
    ("changed", "same"),
    [
        ({"floor": 0.9}, False),
        ({"mean": [0.5, 0.5, 0.5]}, False),
        ({"std": [0.5, 0.5, 0.5]}, False),
        ({"fit": "crop"}, False),
        ({"channels": "bgr"}, False),
        ({"scores": "sigmoid"}, False),
        ({"classes": ["blue", "green", "red"]}, False),
        ({"batch": 9}, True),
        (
            {
                "floor": 0.05,
                "mean": [0, 0, 0],
                "std": [1, 1, 1],
                "fit": "squash",
                "layout": "nchw",
                "channels": "rgb",
            },
            True,
        ),
    ],
)
def test_every_setting_that_changes_results_is_in_the_identity(tmp_path, known, changed, same):
    network(tmp_path / "colours.onnx", 3, SHAPE)
    before, now = rules(tmp_path).identity(), rules(tmp_path, **changed).identity()
    assert (now == before) is same
    stamps = [rules(tmp_path, **each).opinions()[0].detector.version for each in ({}, changed)]
    assert (stamps[0] == stamps[1]) is same and all(
        stamp.startswith("colours.onnx ") for stamp in stamps
    )


def test_size_layout_and_overlap_are_in_it_too(tmp_path, known):
    network(tmp_path / "any.onnx", 3, (3, None, None))
    network(tmp_path / "last.onnx", 3, (None, None, 3))
    small, large = (rules(tmp_path, file="any.onnx", size=size).identity() for size in (32, 64))
    assert small["detector"] | {"size": 64} == large["detector"] != small["detector"]
    assert (
        rules(tmp_path, file="last.onnx", layout="nhwc").identity()["detector"]["layout"] == "nhwc"
    )
    entry = {
        "kind": "yolo",
        "file": str(registry.find().network.file),
        "classes": list(PRESETS["all"].thresholds),
    }
    found = [
        Rules(REDS, entries={"c": {**entry, "overlap": overlap}}).identity()["detector"]
        for overlap in (0.3, 0.6)
    ]
    assert found[0] | {"overlap": 0.6} == found[1]


def test_a_file_is_known_by_its_content_and_not_by_its_name(tmp_path, known):
    network(tmp_path / "colours.onnx", 3, SHAPE)
    before = rules(tmp_path).identity()
    (tmp_path / "colours.onnx").rename(tmp_path / "renamed.onnx")
    assert rules(tmp_path, file="renamed.onnx").identity() == before
    digest = hashlib.sha256((tmp_path / "renamed.onnx").read_bytes()).hexdigest()
    assert before["detector"]["sha256"] == digest, "what sha256sum says"
    network(tmp_path / "colours.onnx", 3, SHAPE, weights=0.5 * np.eye(3))
    assert rules(tmp_path).identity() != before


def test_nudenet_is_known_by_its_package_and_its_weights():
    found, digest = (
        registry.find(),
        hashlib.sha256(registry.find().network.file.read_bytes()).hexdigest(),
    )
    known = Rules(PRESETS["strict"]).identity()["detector"]
    assert (
        known["package"] == version("nudenet")
        and known["sha256"] == digest
        and known["floor"] == found.floor
    )
    assert (
        found.version.startswith(f"{version('nudenet')} ") and len(found.version.split()[1]) == 12
    )


def test_a_detector_of_python_code_is_known_by_what_it_says_of_itself():
    class Dark:
        name, version, classes, floor, batch, provider = "dark", "1", ("DARK",), 0.5, 8, "python"

    assert identity_of(Dark()) == {
        "name": "dark",
        "version": "1",
        "classes": ["DARK"],
        "floor": 0.5,
    }


def test_floors_do_not_resume_into_one_store(tmp_path, known, capsys):
    place = tmp_path / "pictures"
    place.mkdir()
    Image.fromarray(RED).save(place / "red.png")
    network(tmp_path / "colours.onnx", 3, SHAPE)
    (tmp_path / "presets.json").write_text(
        json.dumps({"reds": {"detector": "c", "thresholds": {"red": 0.9}}})
    )
    command = [
        str(place),
        "--preset",
        "reds",
        "--preset-file",
        str(tmp_path / "presets.json"),
        "--workers",
        "1",
    ]
    command += ["--detectors", str(tmp_path / "d.json"), "--output", str(tmp_path / "r.json")]
    for floor, code in ((0.25, 0), (0.95, 1)):
        (tmp_path / "d.json").write_text(json.dumps({"c": {**COLOURS, "floor": floor}}))
        assert main(["audit", *command]) == code
    assert "made with another detector floor (0.25; now 0.95)" in capsys.readouterr().err
    (tmp_path / "d.json").write_text(json.dumps({"c": {**COLOURS, "floor": 0.25}}))
    replaced(tmp_path)
    assert (
        main(["audit", *command]) == 1
        and "made with another detector sha256" in capsys.readouterr().err
    )
