"""Which detector is used: the one at hand while its file and settings stay, and no longer."""

import gc
import weakref

import numpy as np
import onnxruntime
import pytest
from modular_safety_lora.audit.detectors import content, registry, runtime
from modular_safety_lora.audit.detectors.runtime import DetectorError
from modular_safety_lora.audit.folders.workers import audit_files, audit_parallel
from modular_safety_lora.audit.presets import read_presets
from modular_safety_lora.audit.report import audit
from onnx_files import COLOURS, RED, SHAPE, network, replaced, rules
from PIL import Image


def test_a_file_that_is_replaced_is_noticed_and_read_once(tmp_path, known, monkeypatch):
    network(tmp_path / "colours.onnx", 3, SHAPE)
    read, content_of = [], content.content_of
    monkeypatch.setattr(runtime, "content_of", lambda path: read.append(path) or content_of(path))
    first = rules(tmp_path).opinions()[0].detector
    assert (
        all(rules(tmp_path).opinions()[0].detector is first for _ in range(50)) and len(read) == 1
    )
    assert first.detect([RED])[0][0]["score"] == 1.0
    replaced(tmp_path)
    second = registry.find("c")
    assert second is not first and second.version != first.version and len(read) == 2
    assert second.detect([RED])[0][0]["score"] == 0.5 and first.detect([RED])[0][0]["score"] == 1.0
    (tmp_path / "colours.onnx").unlink()
    with pytest.raises(DetectorError, match="there is no such ONNX file"):
        registry.find("c")


def test_weights_in_a_file_beside_are_part_of_the_content(tmp_path, known):
    network(tmp_path / "colours.onnx", 3, SHAPE, beside="weights.data")
    graph, before = (tmp_path / "colours.onnx").read_bytes(), rules(tmp_path).identity()
    first = registry.find("c")
    network(tmp_path / "colours.onnx", 3, SHAPE, weights=0.5 * np.eye(3), beside="weights.data")
    assert (tmp_path / "colours.onnx").read_bytes() == graph and rules(
        tmp_path
    ).identity() != before
    assert (
        registry.find("c") is not first and registry.find("c").detect([RED])[0][0]["score"] == 0.5
    )


def test_a_file_that_is_replaced_while_an_audit_runs_ends_it(tmp_path, known):
    network(tmp_path / "colours.onnx", 3, SHAPE)
    Image.fromarray(RED).save(tmp_path / "red.png")
    held, files = rules(tmp_path).pinned(), [(str(tmp_path / "red.png"), "1")]
    assert audit_files(files, held)[0][2]["flagged"]
    assert [row["flagged"] for rows in audit_parallel(files, held, 1) for _, _, row in rows] == [
        True
    ]
    replaced(tmp_path)
    message = (
        "The detector 'c' was replaced since this audit began.*It was colours.onnx .*, now"
        " colours.onnx"
    )
    with pytest.raises(DetectorError, match=message):
        audit_files(files, held)
    with pytest.raises(DetectorError, match=message):
        list(audit_parallel(files, held, 1))
    assert not audit_files(files, rules(tmp_path))[0][2]["flagged"]


@pytest.mark.parametrize(
    "later",
    [
        lambda folder: registry.find("c", "auto"),
        lambda folder: registry.find("c", "cpu", 1),
        lambda folder: registry.register_entries({"c": {**COLOURS, "floor": 0.9}}, folder),
        lambda folder: registry.register_entries({}, folder),  # taken out of the settings
        lambda folder: (replaced(folder), registry.find("c", "cpu")),
    ],
)
def test_what_is_not_asked_for_any_more_goes_and_what_is_used_works_on(tmp_path, known, later):
    network(tmp_path / "colours.onnx", 3, SHAPE)
    registry.register_entries({"c": COLOURS}, tmp_path)
    used = registry.find("c", "cpu")
    assert registry.find("c", "cpu") is used
    session = weakref.ref(used.network._session)
    later(tmp_path)
    gc.collect()
    assert session() is not None and used.detect([RED])[0][0]["score"] == 1.0
    del used
    gc.collect()
    assert session() is None


def test_the_plain_session_goes_when_another_provider_won(tmp_path, monkeypatch):
    """A stand-in for hardware that is not here: the CPU's session under another provider's name."""
    network(tmp_path / "colours.onnx", 3, SHAPE)
    session, made = onnxruntime.InferenceSession, []

    class Other(session):
        def get_providers(self):
            return ["DmlExecutionProvider"]

    def start(file, options, providers):
        kind = Other if len(providers) > 1 else session
        started = kind(file, options, providers=["CPUExecutionProvider"])
        made.append(weakref.ref(started))
        return started

    monkeypatch.setattr(
        onnxruntime,
        "get_available_providers",
        lambda: ["DmlExecutionProvider", "CPUExecutionProvider"],
    )
    monkeypatch.setattr(onnxruntime, "InferenceSession", start)
    probe, alive = np.zeros((1, *SHAPE), np.float32), []
    check = runtime._check
    monkeypatch.setattr(
        runtime,
        "_check",
        lambda *both: (alive.append([each() is not None for each in made]), check(*both)),
    )
    kept = runtime.OnnxNetwork("c", tmp_path / "colours.onnx", probe)
    gc.collect()
    assert kept.provider == "DmlExecutionProvider" and [each() is not None for each in made] == [
        False,
        True,
    ]
    assert alive == [[False, True]], (
        "the network is in memory once, even while the two are compared"
    )


def test_a_second_opinion_is_given_by_the_detector_that_is_handed_in(known):
    asked = []

    class Dark:
        name, version, classes, floor, batch, provider = "dark", "1", ("DARK",), 0.0, 8, "python"

        def detect(self, pictures):
            asked.append(self)
            return [[{"class": "DARK", "score": 1.0, "box": [0, 0, 1, 1]}] for _ in pictures]

    registry.register(
        "dark", Dark.classes, lambda provider, threads: pytest.fail(f"asked again on {provider}")
    )
    preset = read_presets({"d": {"detector": "dark", "thresholds": {"DARK": 0.9}}}, "file")["d"]
    ours, theirs = Dark(), Dark()
    report = audit(
        [np.zeros((8, 8, 3), np.float32)], preset, second=preset, detector=ours, other=theirs
    )
    assert asked == [ours, theirs] and report["summary"]["second_opinion"]["both"] == 1
