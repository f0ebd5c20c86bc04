"""What makes a detector another one: its file's content and each setting, not the file's name."""

import gc
import hashlib
import json
import os
import weakref
from importlib.metadata import version

import numpy as np
import onnxruntime
import pytest
from modular_safety_lora.audit.detectors import content, runtime
from modular_safety_lora.audit.detectors import registry as detectors
from modular_safety_lora.audit.detectors.interface import identity_of
from modular_safety_lora.audit.detectors.runtime import DetectorError
from modular_safety_lora.audit.folders.workers import audit_files, audit_parallel
from modular_safety_lora.audit.presets import PRESETS, read_presets
from modular_safety_lora.audit.report import audit
from modular_safety_lora.audit.rules import Rules
from modular_safety_lora.commands import main
from onnx_files import COLOURS, network
from PIL import Image

REDS = read_presets({"reds": {"detector": "c", "thresholds": {"red": 0.9}}}, "file")["reds"]
SHAPE = (3, 32, 32)
RED = np.full((9, 9, 3), [255, 0, 0], np.uint8)


def rules(folder, **changed) -> Rules:
    return Rules(REDS, entries={"c": {**COLOURS, **changed}}, folder=str(folder))


def replaced(folder, factor: float = 0.5) -> None:
    """Other weights under the same name, of the same size, with the time of the old file."""
    path = folder / "colours.onnx"
    before = path.stat()
    network(folder / "new.onnx", 3, SHAPE, weights=factor * np.eye(3))
    (folder / "new.onnx").replace(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size and path.stat().st_mtime_ns == before.st_mtime_ns


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
    stamps = [rules(tmp_path, **each).detectors()[0].version for each in ({}, changed)]
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
        "file": str(detectors.find().network.file),
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
        detectors.find(),
        hashlib.sha256(detectors.find().network.file.read_bytes()).hexdigest(),
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


def test_a_file_that_is_replaced_is_noticed_and_read_once(tmp_path, known, monkeypatch):
    network(tmp_path / "colours.onnx", 3, SHAPE)
    read, content_of = [], content.content_of
    monkeypatch.setattr(runtime, "content_of", lambda path: read.append(path) or content_of(path))
    first = rules(tmp_path).detectors()[0]
    assert all(rules(tmp_path).detectors()[0] is first for _ in range(50)) and len(read) == 1
    assert first.detect([RED])[0][0]["score"] == 1.0
    replaced(tmp_path)
    second = detectors.find("c")
    assert second is not first and second.version != first.version and len(read) == 2
    assert second.detect([RED])[0][0]["score"] == 0.5 and first.detect([RED])[0][0]["score"] == 1.0
    (tmp_path / "colours.onnx").unlink()
    with pytest.raises(DetectorError, match="there is no such ONNX file"):
        detectors.find("c")


def test_weights_in_a_file_beside_are_part_of_the_content(tmp_path, known):
    network(tmp_path / "colours.onnx", 3, SHAPE, beside="weights.data")
    graph, before = (tmp_path / "colours.onnx").read_bytes(), rules(tmp_path).identity()
    first = detectors.find("c")
    network(tmp_path / "colours.onnx", 3, SHAPE, weights=0.5 * np.eye(3), beside="weights.data")
    assert (tmp_path / "colours.onnx").read_bytes() == graph and rules(
        tmp_path
    ).identity() != before
    assert (
        detectors.find("c") is not first and detectors.find("c").detect([RED])[0][0]["score"] == 0.5
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
        "The detector 'c' is not the one that this audit began with .*colours.onnx .*; now"
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
        lambda folder: detectors.find("c", "auto"),
        lambda folder: detectors.find("c", "cpu", 1),
        lambda folder: detectors.register_entries({"c": {**COLOURS, "floor": 0.9}}, folder),
        lambda folder: detectors.register_entries({}, folder),  # taken out of the settings
        lambda folder: (replaced(folder), detectors.find("c", "cpu")),
    ],
)
def test_what_is_not_asked_for_any_more_goes_and_what_is_used_works_on(tmp_path, known, later):
    network(tmp_path / "colours.onnx", 3, SHAPE)
    detectors.register_entries({"c": COLOURS}, tmp_path)
    used = detectors.find("c", "cpu")
    assert detectors.find("c", "cpu") is used
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
    kept = runtime.Network("c", tmp_path / "colours.onnx", probe)
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

    detectors.register(
        "dark", Dark.classes, lambda provider, threads: pytest.fail(f"asked anew on {provider}")
    )
    preset = read_presets({"d": {"detector": "dark", "thresholds": {"DARK": 0.9}}}, "file")["d"]
    ours, theirs = Dark(), Dark()
    report = audit(
        [np.zeros((8, 8, 3), np.float32)], preset, second=preset, detector=ours, other=theirs
    )
    assert asked == [ours, theirs] and report["summary"]["second_opinion"]["both"] == 1
