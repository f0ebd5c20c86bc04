"""Detectors that users bring: ONNX files by a settings entry, Python code, and second opinions."""

import json
import sys

import numpy as np
import pytest
from modular_safety_lora.audit.detectors import registry, runtime
from modular_safety_lora.audit.detectors.batches import detections
from modular_safety_lora.audit.detectors.runtime import DetectorError
from modular_safety_lora.audit.detectors.yolo import Yolo, YoloEntry
from modular_safety_lora.audit.presets import CLASSES, PRESETS, choose, read_presets
from modular_safety_lora.audit.report import audit
from onnx_files import COLOURS, network
from skimage import data

WEIGHTS = registry.find().network.file


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize("channels", ["rgb", "bgr"])
@pytest.mark.parametrize("fit", ["squash", "crop", "pad"])
def test_a_users_classifier_sees_the_picture_as_its_entry_says(
    tmp_path, known, layout, channels, fit
):
    network(tmp_path / "colours.onnx", 3, (3, 32, 32) if layout == "nchw" else (32, 32, 3))
    registry.register_entries(
        {"c": {**COLOURS, "layout": layout, "channels": channels, "fit": fit, "floor": 0.0}},
        tmp_path,
    )
    picture = np.zeros((40, 80, 3), np.uint8)
    picture[:, 20:60] = [255, 51, 0]  # the middle square; the rest is black
    found = {each["class"]: each["score"] for each in registry.find("c").detect([picture])[0]}
    share = {"squash": 0.5, "crop": 1.0, "pad": 0.25}[fit]
    first, last = ("red", "blue") if channels == "rgb" else ("blue", "red")
    assert found[first] == pytest.approx(share, abs=0.02) and found["green"] == pytest.approx(
        0.2 * share, abs=0.02
    )
    assert found[last] == 0.0
    assert all(each["box"] == [0, 0, 80, 40] for each in registry.find("c").detect([picture])[0])


@pytest.mark.parametrize("scores", ["softmax", "sigmoid"])
def test_a_users_classifier_is_normalised_and_activated(tmp_path, known, scores):
    network(tmp_path / "colours.onnx", 3, (3, 32, 32))
    entry = {
        **COLOURS,
        "scores": scores,
        "mean": [0.5, 0.5, 0.5],
        "std": [0.25, 0.25, 0.25],
        "floor": 0.0,
    }
    registry.register_entries({"c": entry}, tmp_path)
    found = {
        each["class"]: each["score"]
        for each in registry.find("c").detect([np.full((9, 9, 3), [255, 0, 0], np.uint8)])[0]
    }
    outputs = np.array([2.0, -2.0, -2.0])  # (value - mean) / std
    expected = (
        np.exp(outputs) / np.exp(outputs).sum()
        if scores == "softmax"
        else 1 / (1 + np.exp(-outputs))
    )
    assert [found[name] for name in ("red", "green", "blue")] == pytest.approx(expected, abs=1e-5)


def test_a_users_detector_gives_what_nudenet_gives_on_the_same_weights(known, oracle, pictures):
    names = [name.lower() for name in CLASSES]
    entry = {"kind": "yolo", "file": str(WEIGHTS), "classes": names, "size": 320}
    registry.register_entries({"mine": entry}, WEIGHTS.parent)
    expected = [
        [{**each, "class": each["class"].lower()} for each in oracle.detect(picture)]
        for picture in pictures
    ]
    assert list(detections(registry.find("mine"), pictures)) == expected
    mine = read_presets({"m": {"detector": "mine", "thresholds": {"face_female": 0.5}}}, "file")
    rules = choose("m", presets=mine, known=registry.classes_of("mine"))
    report = audit([pictures[0].astype(np.float32) / 255], rules)
    assert (
        report["images"][0]["reasons"] == ["face_female"]
        and report["summary"]["detector"] == "mine"
    )


def test_a_second_opinion_is_reported_and_flags_nothing(tmp_path, known):
    network(tmp_path / "colours.onnx", 3, (3, 32, 32))
    registry.register_entries({"colours": COLOURS}, tmp_path)
    second = read_presets({"reds": {"detector": "colours", "thresholds": {"red": 0.9}}}, "file")[
        "reds"
    ]
    face, red = data.astronaut().astype(np.float32) / 255, np.zeros((512, 512, 3), np.float32)
    red[..., 0] = 1.0
    images = [face, red, face * 0, red, face, red, red]
    report = audit(images, PRESETS["faces"], second=second)
    alone = audit(images, PRESETS["faces"])
    assert [{**each, "second": None} for each in report["images"]] == [
        {**each, "second": None} for each in alone["images"]
    ]
    assert [each["second"]["flagged"] for each in report["images"]] == [
        False,
        True,
        False,
        True,
        False,
        True,
        True,
    ]
    opinion = report["summary"]["second_opinion"]
    assert [opinion[name] for name in ("both", "only_first", "only_second", "neither")] == [
        0,
        2,
        4,
        1,
    ]
    assert (
        opinion["agreement"] == pytest.approx(1 / 7)
        and opinion["kappa"] < 0
        and opinion["detector"] == "colours"
    )


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"kind": "oracle"}, "it needs a `kind`, one of .*classifier.*yolo"),
        ({"file": None}, "`file` is None; it must be a text"),
        ({"classes": []}, "`classes` is ..; it must be a list of at least 1"),
        ({"classes": ["a", "a"]}, "`classes` names 'a' twice"),
        ({"size": 3.5}, "`size` is 3.5; it must be a whole number"),
        ({"floor": 2}, "`floor` is 2.*; it must be at most 1"),
        ({"fit": "stretch"}, "`fit` is 'stretch'; it must be one of 'squash'"),
        ({"std": [1, 0, 1]}, "`std` must not be 0"),
        ({"mean": [1]}, "`mean` is .1.; it must be a list of at least 3"),
        ({"overlap": 0.5}, "there is no `overlap`; there are file, classes"),
    ],
)
def test_an_entry_that_cannot_be_used_says_why(tmp_path, known, changed, message):
    with pytest.raises(DetectorError, match=f"The detector 'c' in the settings: {message}"):
        registry.register_entries({"c": {**COLOURS, **changed}}, tmp_path)


def test_a_network_that_is_not_as_its_entry_says_is_an_error(tmp_path, known):
    network(tmp_path / "colours.onnx", 3, (3, 32, 32))
    (tmp_path / "text.onnx").write_text("not a network")
    for name, changed, message in [
        ("none", {"file": "absent.onnx"}, "there is no such ONNX file"),
        ("text", {"file": "text.onnx"}, "can't read this as a network"),
        ("size", {"size": 64}, "does not run on pictures of shape .1, 3, 64, 64."),
        ("classes", {"classes": ["a", "b"]}, "but `classes` has 2 names"),
    ]:
        registry.register_entries({name: {**COLOURS, **changed}}, tmp_path)
        with pytest.raises(DetectorError, match=message):
            registry.find(name)
    with pytest.raises(DetectorError, match="with 2 classes it must be .batch, 6, anchors."):
        Yolo("y", "1", YoloEntry(file=str(WEIGHTS), classes=("a", "b")))
    network(tmp_path / "wild.onnx", 3, (3, 32, 32), weights=5 * np.eye(3))
    registry.register_entries({"wild": {**COLOURS, "file": "wild.onnx"}}, tmp_path)
    with pytest.raises(
        DetectorError, match="gave scores from 0 to 5; they must lie in 0..1. Set `scores`"
    ):
        registry.find("wild").detect([np.full((9, 9, 3), [255, 0, 0], np.uint8)])
    with pytest.raises(DetectorError, match="There is no detector 'nobody'; there are NudeNet"):
        registry.find("nobody")
    with pytest.raises(DetectorError, match="this name is taken"):
        registry.register_entries({"NudeNet": COLOURS}, tmp_path)


def test_a_changed_entry_takes_the_old_ones_place(tmp_path, known):
    network(tmp_path / "colours.onnx", 3, (3, 32, 32))
    registry.register_entries({"c": COLOURS}, tmp_path)
    first = registry.find("c")
    registry.register_entries({"c": json.loads(json.dumps(COLOURS))}, tmp_path)
    assert registry.find("c") is first
    registry.register_entries({"c": {**COLOURS, "floor": 0.9}}, tmp_path)
    assert registry.find("c") is not first and registry.find("c").floor == 0.9


def test_python_code_registers_a_detector_in_ten_lines(known):
    class Dark:
        """docs/detectors.md shows this one."""

        name, version, classes, floor, batch, provider = "dark", "1", ("DARK",), 0.0, 8, "python"

        def detect(self, pictures):
            scores = [1.0 - float(picture.mean()) / 255 for picture in pictures]
            boxes = [[0, 0, picture.shape[1], picture.shape[0]] for picture in pictures]
            return [
                [{"class": "DARK", "score": score, "box": box}]
                for score, box in zip(scores, boxes, strict=True)
            ]

    registry.register("dark", Dark.classes, lambda provider, threads: Dark())
    rules = choose(
        "d",
        presets=read_presets({"d": {"detector": "dark", "thresholds": {"DARK": 0.9}}}, "f"),
        known=Dark.classes,
    )
    report = audit([np.zeros((8, 8, 3), np.float32), np.ones((8, 8, 3), np.float32)], rules)
    assert [each["flagged"] for each in report["images"]] == [True, False]
    assert runtime.SHORT["cpu"] == "CPUExecutionProvider"


@pytest.mark.parametrize("package", ["nudenet", "onnxruntime", "cv2"])
def test_a_missing_package_is_known_before_anything_is_loaded(monkeypatch, package):
    registry.check_there("NudeNet")
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(runtime.DetectorMissing, match=f"{package} is not installed. Run `python"):
        registry.check_there("NudeNet")


def test_a_missing_file_is_known_before_anything_is_loaded(tmp_path, known, monkeypatch):
    registry.register_entries({"c": COLOURS}, tmp_path)
    with pytest.raises(DetectorError, match=r"colours.onnx: there is no such ONNX file"):
        registry.check_there("c")
    network(tmp_path / "colours.onnx", 3, (3, 32, 32))
    registry.check_there("c")
    monkeypatch.setitem(sys.modules, "nudenet", None)
    registry.check_there("c")
    with pytest.raises(DetectorError, match="There is no detector 'd'"):
        registry.check_there("d")
