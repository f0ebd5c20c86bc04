"""A second detector that is asked where the first is unsure, and detections that are too small."""

import json
import math

import numpy as np
import pytest
from modular_safety_lora.audit.detectors import registry
from modular_safety_lora.audit.detectors.batches import Unjudged
from modular_safety_lora.audit.detectors.runtime import DetectorError
from modular_safety_lora.audit.folders import workers
from modular_safety_lora.audit.folders.recount import detected, recounted
from modular_safety_lora.audit.opinion import judge, sized
from modular_safety_lora.audit.presets import PRESETS, PresetError, read_presets
from modular_safety_lora.audit.reading import CompareError, check_counts
from modular_safety_lora.audit.report import audit
from modular_safety_lora.audit.rules import Counting, Rules
from modular_safety_lora.audit.words import in_words
from onnx_files import COLOURS, network
from PIL import Image

GREENS = {"detector": "second", "thresholds": {"green": 0.5}}
CHAIN = {
    "detector": "first",
    "thresholds": {"red": 0.6},
    "ask": {"preset": "greens", "from": 0.3, "to": 0.8},
}
ENTRIES = {"first": {**COLOURS, "classes": ["red", "b", "c"]}, "second": COLOURS}
# red, green: what the first says, whether it is asked, whether it is flagged
COLOURED = {
    (51, 255): (False, False, False),  # too little red to ask
    (102, 255): (False, True, True),
    (102, 0): (False, True, False),
    (179, 255): (True, True, True),
    (179, 0): (True, True, False),
    (255, 0): (True, False, True),  # sure
}
PICTURES = [np.full((16, 16, 3), [red, green, 0], np.uint8) for red, green in COLOURED]


class Broken:
    name, version, classes, floor, batch, provider = "broken", "1", ("green",), 0.0, 8, "python"

    def detect(self, pictures):
        box = [0, 0, 1, 1]
        return [[{"class": "green", "score": math.nan, "box": box}] for _ in pictures]


@pytest.fixture
def chain(tmp_path, known):
    network(tmp_path / "colours.onnx", 3, (3, 32, 32))
    registry.register_entries(ENTRIES, tmp_path)
    return read_presets({"greens": GREENS, "chain": CHAIN}, "file")["chain"]


def test_the_second_decides_where_the_first_is_unsure(chain):
    report = audit(PICTURES, chain)
    for result, (first, asked, flagged) in zip(report["images"], COLOURED.values(), strict=True):
        assert result["flagged"] == flagged and ("asked" in result) == asked
        if asked:
            assert result["asked"] == {"pictures": 1, "first": first, "second": flagged}
            assert {each.get("by") for each in result["detections"]} == {None, "second"}
        assert result["reasons"] == (["green" if asked else "red"] if flagged else [])
    told = report["summary"]["asked"]
    assert [told[name] for name in ("pictures", "from")] == [4, 0.3]
    assert [told[each] for each in ("both", "only_first", "only_second", "neither")] == [1] * 4
    assert told["agreement"] == 0.5 and told["kappa"] == 0.0 and told["detector"] == "second"
    assert report["summary"]["classes"].keys() == {"red", "green"}
    assert "asked about 4 of 6 pictures" in in_words(report["summary"])
    check_counts("chain", json.loads(json.dumps(report)))
    report["images"][2]["flagged"] = True
    with pytest.raises(CompareError, match="not judged by its own thresholds"):
        check_counts("chain", report)


def test_folders_ask_as_the_node_does(chain, tmp_path):
    rules = Rules(chain, entries=ENTRIES, folder=str(tmp_path))
    files = []
    for number, picture in enumerate(PICTURES):
        files.append((str(tmp_path / f"{number}.png"), ""))
        Image.fromarray(picture).save(files[-1][0])
    first, *rest = map(Image.fromarray, PICTURES[2:4])
    first.save(tmp_path / "all.tif", save_all=True, append_images=rest)
    rows = [row for _, _, row in workers.audit_files(files, rules)]
    for row, result in zip(rows, audit(PICTURES, chain)["images"], strict=True):
        assert result.items() <= row.items()
    (_, _, row), *_ = workers.audit_files([(str(tmp_path / "all.tif"), "")], rules)
    assert row["flagged"] and row["asked"] == {"pictures": 2, "first": True, "second": True}
    assert {each["frame"] for each in row["detections"]} == {0, 1}


def test_a_second_that_cannot_be_loaded_or_judge_is_an_error(chain, tmp_path):
    rules = Rules(chain, entries=ENTRIES, folder=str(tmp_path)).pinned()
    assert len(rules.pins) == 2
    registry.register("second", ("green",), lambda provider, threads: Broken())
    with pytest.raises(Unjudged, match="picture 2 can't be judged"):
        audit(PICTURES, chain)
    other = {**ENTRIES, "second": {**COLOURS, "file": "other.onnx"}}
    registry.register_entries(other, tmp_path)
    with pytest.raises(DetectorError, match="no such ONNX file"):
        audit(PICTURES[:1], chain)
    with pytest.raises(DetectorError, match="no such ONNX file"):
        Rules(chain, entries=other, folder=str(tmp_path)).opinions()


def test_a_store_of_a_chain_is_not_counted_by_another_rule(chain):
    alone = PRESETS["strict"].identity()
    assert detected({"preset": alone}) != detected({"preset": chain.identity()})
    assert alone.keys().isdisjoint({"ask", "min_size"}), "stores of before go on"
    with pytest.raises(PresetError, match="does not have .first: green"):
        read = read_presets({"greens": {**GREENS, "detector": "NudeNet"}, "chain": CHAIN}, "file")
        Counting("chain").among(read)


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        ({"preset": "nothing", "from": 0.3}, "preset 'chain': There is no audit preset 'nothing'"),
        ({"preset": "greens"}, "`ask.from` is missing"),
        ({"preset": "greens", "from": 0.7}, "it asks from 0.7 on, but counts from 0.6 on"),
        ({"preset": "greens", "from": 0.3, "to": 0.5}, "asks up to 0.5, but counts from 0.6 on"),
        ({"preset": "photos and drawings", "from": 0.3}, "which asks another one"),
        ({"preset": "reds", "from": 0.3}, "both count red"),
        ({"preset": "greens", "from": 2}, "`ask.from` is 2"),
    ],
)
def test_a_chain_that_cannot_be_used_says_why(ask, message):
    reds = {"detector": "second", "thresholds": {"red": 0.5}}
    with pytest.raises(PresetError, match=f"file.*{message}"):
        read_presets({"greens": GREENS, "reds": reds, "chain": {**CHAIN, "ask": ask}}, "file")


# width and height of the picture, of the box, and its size: the larger of the two shares
SIZES = [((100, 50), (10, 10), 0.2), ((50, 100), (10, 10), 0.2), ((100, 50), (30, 10), 0.3)]


@pytest.mark.parametrize(("picture", "box", "size"), SIZES)
def test_the_size_of_a_detection_is_the_larger_of_its_shares(picture, box, size):
    found = [{"class": "ANUS_EXPOSED", "score": 0.9, "box": [3, 4, *box]}]
    (seen,) = sized(found, (picture[1], picture[0], 3))
    assert seen["size"] == pytest.approx(size)
    for least, counts in ((size - 0.01, True), (size + 0.01, False)):
        preset, _ = Counting("strict", min_size=least).among(PRESETS)
        assert judge([seen], preset)["flagged"] is counts
    assert judge(found, preset)["flagged"], "a size that nobody wrote down is none too small"


def test_stored_rows_are_counted_again_by_another_min_size():
    found = {"class": "ANUS_EXPOSED", "score": 0.9, "box": [0, 0, 9, 9], "size": 0.1}
    row = {"path": "a.png"} | judge([found], PRESETS["strict"])
    preset, _ = Counting("strict", min_size=0.2).among(PRESETS)
    assert row["flagged"] and not recounted(row, Rules(preset))["flagged"]
    report = audit([np.zeros((8, 8, 3), np.uint8)], preset)
    assert report["summary"]["min_size"] == 0.2
    check_counts("small", json.loads(json.dumps(report)))
