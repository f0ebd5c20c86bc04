"""NudeNet in every batching against the package itself, and what it runs on."""

import itertools
import logging
import threading

import cv2
import numpy as np
import pytest
from modular_safety_lora.audit.detectors import registry
from modular_safety_lora.audit.detectors.batches import BATCH_BYTES, detections
from modular_safety_lora.audit.detectors.runtime import DetectorError, OnnxNetwork
from modular_safety_lora.audit.detectors.yolo import LONGEST
from skimage import data

WEIGHTS = registry.find().network.file


@pytest.fixture(scope="module")
def expected(oracle, pictures) -> list[list]:
    """NudeNet's own detections, one picture at a time."""
    found = [oracle.detect(picture) for picture in pictures]
    assert sum(map(bool, found)) > 40
    return found


LONG = [pytest.param(size, marks=pytest.mark.long) for size in (2, 3, 4, 5, 7, 8, 60)]


@pytest.mark.parametrize("size", [1, 16, *LONG])
@pytest.mark.slow
def test_every_batch_size_gives_nudenets_detections(expected, pictures, size, monkeypatch):
    monkeypatch.setattr(registry.find(), "batch", size)
    assert list(detections(registry.find(), pictures)) == expected  # to the last bit


@pytest.mark.slow
def test_every_chunking_gives_nudenets_detections(expected, pictures):
    rng = np.random.default_rng(2)
    cuts = [0, *sorted(rng.choice(np.arange(1, 60), 6, replace=False)), 60]
    found = [registry.find().detect(pictures[start:end]) for start, end in itertools.pairwise(cuts)]
    assert [each for chunk in found for each in chunk] == expected


def test_a_batch_of_large_pictures_is_cut_short(monkeypatch):
    sizes, found = [], registry.find()
    monkeypatch.setattr(
        found, "detect", lambda batch: sizes.append(len(batch)) or [[] for _ in batch]
    )
    large = np.broadcast_to(np.zeros(3, np.uint8), (BATCH_BYTES // 3 // 1000 + 1, 1000, 3))
    assert list(detections(found, [large, large])) == [[], []]
    small = np.zeros((8, 8, 3), np.uint8)
    list(detections(found, [small] * 33))
    assert sizes == [1, 1, 16, 16, 1]


def test_pictures_are_read_as_they_are_needed():
    """Ten thousand pictures never lie in memory: at most a batch is read ahead of the results."""
    read = []

    def stream():
        for number in range(40):
            read.append(number)
            yield np.zeros((16, 16, 3), np.uint8)

    for done, _ in enumerate(detections(registry.find(), stream())):
        assert len(read) <= done + registry.find().batch


def test_a_long_picture_is_reduced_and_found_in(oracle):
    face = data.astronaut()
    long = np.zeros((512, LONGEST + 808, 3), np.uint8)
    long[:, 100:612] = face
    # 2048 x 36000, padded 3.9 GB for NudeNet
    large = cv2.resize(long, None, fx=4, fy=4, interpolation=cv2.INTER_NEAREST)
    assert registry.find().detect([large]) == [[]], (
        "a face of 0.3 % of the width can't be found in 320 pixels"
    )
    square = cv2.resize(face, (LONGEST + 1000, LONGEST + 1000))
    found, expected = registry.find().detect([square])[0], oracle.detect(square)
    assert (
        [each["class"] for each in found] == [each["class"] for each in expected] == ["FACE_FEMALE"]
    )
    assert found[0]["score"] == pytest.approx(expected[0]["score"], abs=0.05)
    assert np.abs(np.subtract(found[0]["box"], expected[0]["box"])).max() < 0.02 * (LONGEST + 1000)


def test_threads_share_one_session(expected, pictures):
    registry._made.clear()
    found: dict[int, list] = {}
    start = threading.Barrier(8)

    def work(number: int) -> None:
        start.wait()
        found[number] = (id(registry.find()), registry.find().detect(pictures[:5]))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({made for made, _ in found.values()}) == 1
    assert all(each == expected[:5] for _, each in found.values())


def probe() -> np.ndarray:
    return np.random.default_rng(0).random((1, 3, 320, 320), dtype=np.float32)


def test_the_line_says_what_the_detector_runs_on(caplog):
    with caplog.at_level(logging.INFO):
        assert OnnxNetwork("NudeNet 3", WEIGHTS, probe()).provider == "CPUExecutionProvider"
    assert "NudeNet 3 runs on CPU" in caplog.text


def test_a_provider_that_is_not_installed_or_does_not_load_is_passed_over_aloud(
    monkeypatch, caplog
):
    import onnxruntime

    assert OnnxNetwork("N", WEIGHTS, probe(), "coreml").provider == "CPUExecutionProvider"
    assert "CoreMLExecutionProvider is not used (it is not installed)" in caplog.text
    # as with a GPU build on a machine without the driver
    there = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: there)
    assert OnnxNetwork("N", WEIGHTS, probe()).provider == "CPUExecutionProvider"
    assert "CUDAExecutionProvider is not used" in caplog.text
    with pytest.raises(DetectorError, match="There is no provider 'gpu'; there are auto, cuda"):
        OnnxNetwork("N", WEIGHTS, probe(), "gpu")


@pytest.mark.parametrize(("factor", "used"), [(1.001, True), (1.05, False), (np.nan, False)])
def test_a_provider_that_computes_something_else_is_passed_over(monkeypatch, caplog, factor, used):
    """A stand-in for hardware that is not here.

    It gives the CPU's own outputs, a little off, under another provider's name.
    """
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
    monkeypatch.setattr(
        onnxruntime,
        "get_available_providers",
        lambda: ["DmlExecutionProvider", "CPUExecutionProvider"],
    )

    def start(file, options, providers):
        made = session(file, options, providers=["CPUExecutionProvider"])
        return Off(made) if len(providers) > 1 else made

    monkeypatch.setattr(onnxruntime, "InferenceSession", start)
    assert (OnnxNetwork("N", WEIGHTS, probe()).provider == "DmlExecutionProvider") is used
    assert used or "off the CPU's" in caplog.text
