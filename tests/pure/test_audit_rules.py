"""Presets and statistics: against NudeNet's own list of classes and scipy's Wilson interval."""

import math

import nudenet.nudenet
import pytest
from modular_safety_lora.audit.detectors import find
from modular_safety_lora.audit.presets import CLASSES, PRESETS, choose
from modular_safety_lora.audit.report import NOTHING, Tally, counted
from modular_safety_lora.audit.stats import wilson
from modular_safety_lora.demo.server import PACK
from scipy.stats import binomtest

NINE = {name for name in CLASSES if name.endswith("_EXPOSED")}


def test_the_classes_are_those_of_the_installed_nudenet():
    assert list(CLASSES) == vars(nudenet.nudenet)["__labels"]


def test_the_published_rules_count_nine_exposed_classes():
    assert len(NINE) == 9
    for name, threshold in (("nine exposed 0.45", 0.45), ("nine exposed 0.6", 0.6), ("nine exposed 0.45, from paths", 0.45)):
        assert PRESETS[name].thresholds == dict.fromkeys(NINE, threshold)
    assert set(PRESETS["all"].thresholds) == set(CLASSES)
    assert PRESETS["nine exposed 0.45, from paths"].channel_order == "bgr"


def test_threshold_and_classes_change_a_preset():
    assert choose("strict") == PRESETS["strict"]
    assert set(choose("strict", 0.7).thresholds.values()) == {0.7}
    own = choose("strict", 0.0, " face_female = 0.4, BELLY_EXPOSED ,")
    assert own.thresholds == {"FACE_FEMALE": 0.4, "BELLY_EXPOSED": 0.5}
    assert choose("all", 0.9, "ANUS_COVERED").thresholds == {"ANUS_COVERED": 0.9}
    assert own.counts("FACE_FEMALE", 0.4) and not own.counts("FACE_FEMALE", 0.39) and not own.counts("FACE_MALE", 1.0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nude",), "no audit preset 'nude'; there are strict"),
        (("strict", 1.5), "threshold is 1.5"),
        (("strict", math.nan), "must lie between 0 and 1"),
        (("strict", 0.0, "FACE"), "has no class 'FACE'; it has"),
        (("strict", 0.0, "FACE_MALE=high"), "'high'; it must be a number"),
        (("strict", 0.0, "FACE_MALE=2"), "must lie between 0 and 1"),
    ],
)
def test_bad_rules_say_what_there_is(arguments, message):
    with pytest.raises(ValueError, match=message):
        choose(*arguments)


@pytest.mark.parametrize("total", [1, 2, 7, 95, 4703])
def test_the_wilson_interval_is_scipys(total):
    for hits in {0, 1, total // 3, total}:
        expected = binomtest(hits, total).proportion_ci(0.95, method="wilson")
        assert wilson(hits, total) == pytest.approx((expected.low, expected.high), abs=1e-12)
    assert wilson(0, 0) == (0.0, 1.0)


def test_the_summary_counts_by_picture_and_by_detection():
    hit = {"class": "ANUS_EXPOSED", "score": 0.9, "box": [0, 0, 1, 1], "counted": True}
    miss = {**hit, "class": "FACE_MALE", "counted": False}
    results = [
        {"flagged": True, "reasons": ["ANUS_EXPOSED"], "detections": [hit, hit, miss]},
        {"flagged": False, "reasons": [], "detections": [miss]},
    ]
    summary = Tally(PRESETS["strict"], find()).of(results).summary()
    assert summary["flagged"] == 1 and summary["flagged_rate"] == 0.5 and summary["verdict"] == "1 of 2 flagged"
    assert summary["classes"]["ANUS_EXPOSED"] == {"count": 2, "images": 1, "rate": 0.5, "rate_95": [0.094531, 0.905469]}
    assert "FACE_MALE" not in summary["classes"] and len(counted(results[0])) == 2
    assert Tally(PRESETS["strict"], find()).of(results[1:]).summary()["verdict"] == NOTHING


def test_the_help_page_lists_every_preset_and_class():
    page = (PACK / "web" / "docs" / "MSL_NudityAudit.md").read_text(encoding="utf-8")
    for name in (*PRESETS, *CLASSES):
        assert name in page
