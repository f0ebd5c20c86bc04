"""Detectors: NudeNet in every batching against the package itself, providers, and what users bring."""

import itertools
import json
import logging
import threading

import cv2
import numpy as np
import onnx
import pytest
from modular_safety_lora.audit import detectors, runtime
from modular_safety_lora.audit.detector import BATCH_BYTES, detections
from modular_safety_lora.audit.presets import CLASSES, PRESETS, choose, read_presets
from modular_safety_lora.audit.report import audit
from modular_safety_lora.audit.runtime import DetectorError, Network
from modular_safety_lora.audit.yolo import LONGEST, Yolo
from nudenet import NudeDetector
from onnx import TensorProto, helper
from PIL import Image
from skimage import data

WEIGHTS = detectors.find().network.file


@pytest.fixture(scope="module")
def oracle() -> NudeDetector:
    return NudeDetector()


@pytest.fixture(scope="module")
def pictures() -> list[np.ndarray]:
    """Sixty pictures of many sizes, most with something to find."""
    face, found = Image.fromarray(data.astronaut()), []
    for number in range(60):
        width, height = 96 + 17 * (number % 13), 96 + 23 * (number % 11)
        turned = face.rotate(5 * (number % 7) - 15).resize((width, height))
        found.append(np.roll(np.array(turned), 3 * number, axis=1))
    return found


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 7, 8, 16, 60])
def test_every_batch_size_gives_nudenets_detections(oracle, pictures, size, monkeypatch):
    monkeypatch.setattr(detectors.find(), "batch", size)
    expected = [oracle.detect(picture) for picture in pictures]
    assert sum(map(bool, expected)) > 40
    assert list(detections(detectors.find(), pictures)) == expected  # to the last bit


def test_every_chunking_gives_nudenets_detections(oracle, pictures):
    expected, rng = [oracle.detect(picture) for picture in pictures], np.random.default_rng(2)
    for _ in range(5):
        cuts = [0, *sorted(rng.choice(np.arange(1, 60), 6, replace=False)), 60]
        found = [detectors.find().detect(pictures[start:end]) for start, end in itertools.pairwise(cuts)]
        assert [each for chunk in found for each in chunk] == expected


def test_a_batch_of_large_pictures_is_cut_short(monkeypatch):
    sizes, found = [], detectors.find()
    monkeypatch.setattr(found, "detect", lambda batch: sizes.append(len(batch)) or [[] for _ in batch])
    large = np.broadcast_to(np.zeros(3, np.uint8), (BATCH_BYTES // 3 // 1000 + 1, 1000, 3))
    assert list(detections(found, [large, large])) == [[], []]
    small = np.zeros((8, 8, 3), np.uint8)
    list(detections(found, [small] * 33))
    assert sizes == [1, 1, 16, 16, 1]


def test_pictures_are_read_as_they_are_needed():
    """Ten thousand pictures never lie in memory: no more than a batch is read ahead of the results."""
    read = []

    def stream():
        for number in range(40):
            read.append(number)
            yield np.zeros((16, 16, 3), np.uint8)

    for done, _ in enumerate(detections(detectors.find(), stream())):
        assert len(read) <= done + detectors.find().batch


def test_a_long_picture_is_reduced_and_found_in(oracle):
    face = data.astronaut()
    long = np.zeros((512, LONGEST + 808, 3), np.uint8)
    long[:, 100:612] = face
    large = cv2.resize(long, None, fx=4, fy=4, interpolation=cv2.INTER_NEAREST)  # 2048 x 36000, padded 3.9 GB for NudeNet
    assert detectors.find().detect([large]) == [[]], "a face of 0.3 % of the width can't be found in 320 pixels"
    square = cv2.resize(face, (LONGEST + 1000, LONGEST + 1000))
    found, expected = detectors.find().detect([square])[0], oracle.detect(square)
    assert [each["class"] for each in found] == [each["class"] for each in expected] == ["FACE_FEMALE"]
    assert found[0]["score"] == pytest.approx(expected[0]["score"], abs=0.05)
    assert np.abs(np.subtract(found[0]["box"], expected[0]["box"])).max() < 0.02 * (LONGEST + 1000)


def test_threads_share_one_session(oracle, pictures):
    expected = [oracle.detect(picture) for picture in pictures[:12]]
    detectors._made.clear()
    found: dict[int, list] = {}
    start = threading.Barrier(8)

    def work(number: int) -> None:
        start.wait()
        found[number] = (id(detectors.find()), detectors.find().detect(pictures[:12]))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({made for made, _ in found.values()}) == 1
    assert all(each == expected for _, each in found.values())


def probe() -> np.ndarray:
    return np.random.default_rng(0).random((1, 3, 320, 320), dtype=np.float32)


def test_the_line_says_what_the_detector_runs_on(caplog):
    with caplog.at_level(logging.INFO):
        assert Network("NudeNet 3", WEIGHTS, probe()).provider == "CPUExecutionProvider"
    assert "NudeNet 3 runs on CPU" in caplog.text


def test_a_provider_that_is_not_installed_or_does_not_load_is_passed_over_aloud(monkeypatch, caplog):
    import onnxruntime

    assert Network("N", WEIGHTS, probe(), "coreml").provider == "CPUExecutionProvider"
    assert "CoreMLExecutionProvider is not used (it is not installed)" in caplog.text
    there = ["CUDAExecutionProvider", "CPUExecutionProvider"]  # as with a GPU build on a machine without the driver
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: there)
    assert Network("N", WEIGHTS, probe()).provider == "CPUExecutionProvider"
    assert "CUDAExecutionProvider is not used" in caplog.text
    with pytest.raises(DetectorError, match="There is no provider 'gpu'; there are auto, cuda"):
        Network("N", WEIGHTS, probe(), "gpu")


@pytest.mark.parametrize(("factor", "used"), [(1.001, True), (1.05, False), (np.nan, False)])
def test_a_provider_that_computes_something_else_is_passed_over(monkeypatch, caplog, factor, used):
    """A stand-in for hardware that is not here: the CPU's own outputs, a little off, under another provider's name."""
    import onnxruntime

    class Off:
        def __init__(self, session):
            self.session = session

        def __getattr__(self, name):
            return getattr(self.session, name)

        def get_providers(self):
            return ["DmlExecutionProvider"]

        def run(self, names, feed):
            return [output * np.float32(factor) for output in self.session.run(names, feed)]

    session = onnxruntime.InferenceSession
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["DmlExecutionProvider", "CPUExecutionProvider"])

    def start(file, options, providers):
        made = session(file, options, providers=["CPUExecutionProvider"])
        return Off(made) if len(providers) > 1 else made

    monkeypatch.setattr(onnxruntime, "InferenceSession", start)
    assert (Network("N", WEIGHTS, probe()).provider == "DmlExecutionProvider") is used
    assert used or "off the CPU's" in caplog.text


def network(path, outputs, shape, weights=None):
    """A small ONNX file: mean colour of the picture, times weights (3, classes)."""
    layout = ["batch", *shape]
    axes = [2, 3] if shape[0] == 3 else [1, 2]
    weights = np.asarray(weights if weights is not None else np.eye(3, outputs), np.float32)
    nodes = [
        helper.make_node("ReduceMean", ["pictures", "axes"], ["mean"], keepdims=0),
        helper.make_node("MatMul", ["mean", "weights"], ["scores"]),
    ]
    constants = [
        helper.make_tensor("axes", TensorProto.INT64, [2], axes),
        helper.make_tensor("weights", TensorProto.FLOAT, list(weights.shape), weights.reshape(-1).tolist()),
    ]
    graph = helper.make_graph(
        nodes,
        "mean colour",
        [helper.make_tensor_value_info("pictures", TensorProto.FLOAT, layout)],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", outputs])],
        constants,
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)


@pytest.fixture
def known():
    """Own detectors, forgotten afterwards."""
    before = dict(detectors._known)
    yield
    detectors._known.clear()
    detectors._known.update(before)
    detectors._made.clear()


COLOURS = {"kind": "classifier", "file": "colours.onnx", "classes": ["red", "green", "blue"], "size": 32, "scores": "none"}


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize("channels", ["rgb", "bgr"])
@pytest.mark.parametrize("fit", ["squash", "crop", "pad"])
def test_a_users_classifier_sees_the_picture_as_its_entry_says(tmp_path, known, layout, channels, fit):
    network(tmp_path / "colours.onnx", 3, (3, 32, 32) if layout == "nchw" else (32, 32, 3))
    detectors.register_entries(
        {"c": {**COLOURS, "layout": layout, "channels": channels, "fit": fit, "floor": 0.0}}, tmp_path
    )
    picture = np.zeros((40, 80, 3), np.uint8)
    picture[:, 20:60] = [255, 51, 0]  # the middle square; the rest is black
    found = {each["class"]: each["score"] for each in detectors.find("c").detect([picture])[0]}
    share = {"squash": 0.5, "crop": 1.0, "pad": 0.25}[fit]
    first, last = ("red", "blue") if channels == "rgb" else ("blue", "red")
    assert found[first] == pytest.approx(share, abs=0.02) and found["green"] == pytest.approx(0.2 * share, abs=0.02)
    assert found[last] == 0.0
    assert all(each["box"] == [0, 0, 80, 40] for each in detectors.find("c").detect([picture])[0])


@pytest.mark.parametrize("scores", ["softmax", "sigmoid"])
def test_a_users_classifier_is_normalised_and_activated(tmp_path, known, scores):
    network(tmp_path / "colours.onnx", 3, (3, 32, 32))
    entry = {**COLOURS, "scores": scores, "mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25], "floor": 0.0}
    detectors.register_entries({"c": entry}, tmp_path)
    found = {
        each["class"]: each["score"] for each in detectors.find("c").detect([np.full((9, 9, 3), [255, 0, 0], np.uint8)])[0]
    }
    outputs = np.array([2.0, -2.0, -2.0])  # (value - mean) / std
    expected = np.exp(outputs) / np.exp(outputs).sum() if scores == "softmax" else 1 / (1 + np.exp(-outputs))
    assert [found[name] for name in ("red", "green", "blue")] == pytest.approx(expected, abs=1e-5)


def test_a_users_detector_gives_what_nudenet_gives_on_the_same_weights(known, oracle, pictures):
    names = [name.lower() for name in CLASSES]
    entry = {"kind": "yolo", "file": str(WEIGHTS), "classes": names, "size": 320}
    detectors.register_entries({"mine": entry}, WEIGHTS.parent)
    expected = [[{**each, "class": each["class"].lower()} for each in oracle.detect(picture)] for picture in pictures]
    assert list(detections(detectors.find("mine"), pictures)) == expected
    mine = read_presets({"m": {"detector": "mine", "thresholds": {"face_female": 0.5}}}, "file")
    rules = choose("m", presets=mine, known=detectors.classes_of("mine"))
    report = audit([pictures[0].astype(np.float32) / 255], rules)
    assert report["images"][0]["reasons"] == ["face_female"] and report["summary"]["detector"] == "mine"


def test_a_second_opinion_is_reported_and_flags_nothing(tmp_path, known):
    network(tmp_path / "colours.onnx", 3, (3, 32, 32))
    detectors.register_entries({"colours": COLOURS}, tmp_path)
    second = read_presets({"reds": {"detector": "colours", "thresholds": {"red": 0.9}}}, "file")["reds"]
    face, red = data.astronaut().astype(np.float32) / 255, np.zeros((512, 512, 3), np.float32)
    red[..., 0] = 1.0
    images = [face, red, face * 0, red, face, red, red]
    report = audit(images, PRESETS["faces"], second=second)
    alone = audit(images, PRESETS["faces"])
    assert [{**each, "second": None} for each in report["images"]] == [{**each, "second": None} for each in alone["images"]]
    assert [each["second"]["flagged"] for each in report["images"]] == [False, True, False, True, False, True, True]
    opinion = report["summary"]["second_opinion"]
    assert [opinion[name] for name in ("both", "only_first", "only_second", "neither")] == [0, 2, 4, 1]
    assert opinion["agreement"] == pytest.approx(1 / 7) and opinion["kappa"] < 0 and opinion["detector"] == "colours"


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"kind": "oracle"}, "it needs a `kind`, yolo or classifier"),
        ({"file": None}, "`file` must name"),
        ({"classes": []}, "`classes` must list"),
        ({"classes": ["a", "a"]}, "`classes` names a class twice"),
        ({"size": 3.5}, "`size` is 3.5; it must be a whole number"),
        ({"floor": 2}, "`floor` is 2; it must be a number from 0"),
        ({"fit": "stretch"}, "`fit` is 'stretch'; it must be one of squash"),
        ({"std": [1, 0, 1]}, "`std` must not be 0"),
        ({"mean": [1]}, "`mean` must be three numbers"),
        ({"overlap": 0.5}, "a classifier has no overlap; it has"),
    ],
)
def test_an_entry_that_cannot_be_used_says_why(tmp_path, known, changed, message):
    with pytest.raises(DetectorError, match=f"The detector 'c' in the settings: {message}"):
        detectors.register_entries({"c": {**COLOURS, **changed}}, tmp_path)


def test_a_network_that_is_not_as_its_entry_says_is_an_error(tmp_path, known):
    network(tmp_path / "colours.onnx", 3, (3, 32, 32))
    (tmp_path / "text.onnx").write_text("not a network")
    for name, changed, message in [
        ("none", {"file": "absent.onnx"}, "there is no such ONNX file"),
        ("text", {"file": "text.onnx"}, "can't read this as a network"),
        ("size", {"size": 64}, "does not run on pictures of shape .1, 3, 64, 64."),
        ("classes", {"classes": ["a", "b"]}, "and `classes` names 2"),
    ]:
        detectors.register_entries({name: {**COLOURS, **changed}}, tmp_path)
        with pytest.raises(DetectorError, match=message):
            detectors.find(name)
    with pytest.raises(DetectorError, match="with 2 classes it must be .batch, 6, anchors."):
        Yolo("y", "1", WEIGHTS, ["a", "b"])
    network(tmp_path / "wild.onnx", 3, (3, 32, 32), weights=5 * np.eye(3))
    detectors.register_entries({"wild": {**COLOURS, "file": "wild.onnx"}}, tmp_path)
    with pytest.raises(DetectorError, match="gave scores from 0 to 5; they must lie in 0..1. Set `scores`"):
        detectors.find("wild").detect([np.full((9, 9, 3), [255, 0, 0], np.uint8)])
    with pytest.raises(DetectorError, match="There is no detector 'nobody'; there are NudeNet"):
        detectors.find("nobody")
    with pytest.raises(DetectorError, match="this name is taken"):
        detectors.register_entries({"NudeNet": COLOURS}, tmp_path)


def test_a_changed_entry_takes_the_old_ones_place(tmp_path, known):
    network(tmp_path / "colours.onnx", 3, (3, 32, 32))
    detectors.register_entries({"c": COLOURS}, tmp_path)
    first = detectors.find("c")
    detectors.register_entries({"c": json.loads(json.dumps(COLOURS))}, tmp_path)
    assert detectors.find("c") is first
    detectors.register_entries({"c": {**COLOURS, "floor": 0.9}}, tmp_path)
    assert detectors.find("c") is not first and detectors.find("c").floor == 0.9


def test_python_code_registers_a_detector_in_ten_lines(known):
    class Dark:
        """docs/detectors.md shows this one."""

        name, version, classes, floor, batch, provider = "dark", "1", ("DARK",), 0.0, 8, "python"

        def detect(self, pictures):
            scores = [1.0 - float(picture.mean()) / 255 for picture in pictures]
            boxes = [[0, 0, picture.shape[1], picture.shape[0]] for picture in pictures]
            return [[{"class": "DARK", "score": score, "box": box}] for score, box in zip(scores, boxes, strict=True)]

    detectors.register("dark", Dark.classes, lambda provider, threads: Dark())
    rules = choose(
        "d", presets=read_presets({"d": {"detector": "dark", "thresholds": {"DARK": 0.9}}}, "f"), known=Dark.classes
    )
    report = audit([np.zeros((8, 8, 3), np.float32), np.ones((8, 8, 3), np.float32)], rules)
    assert [each["flagged"] for each in report["images"]] == [True, False]
    assert runtime.SHORT["cpu"] == "CPUExecutionProvider"
