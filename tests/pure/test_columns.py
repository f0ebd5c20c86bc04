"""Columns of reports: one row each, and reports of earlier versions that lack the newer ones."""

import json
from dataclasses import replace

import pytest
from modular_safety_lora.audit import columns, compare, reading, report
from modular_safety_lora.audit.columns import CLASSES, PICTURES, TILE, Counted
from modular_safety_lora.audit.detectors.registry import find
from modular_safety_lora.audit.opinion import judge
from modular_safety_lora.audit.presets import PRESETS
from modular_safety_lora.audit.reading import CompareError, parsed
from modular_safety_lora.audit.report import Tally, as_text
from modular_safety_lora.drawing.markdown import share, span

HIT = {"class": "ANUS_EXPOSED", "score": 0.9, "box": [2, 2, 4, 4]}
SEVERAL = Counted(
    "several",
    "with several detections",
    places=frozenset({TILE, columns.COMPARED}),
    adds=lambda result: len(columns.counted(result)) > 1,
)


def report_of(*counts: int) -> dict:
    """A report of pictures with so many counted detections each."""
    results = [judge([HIT] * count, PRESETS["strict"]) for count in counts]
    return {"images": results, "summary": Tally(PRESETS["strict"]).of(results).summary(find())}


@pytest.fixture
def earlier(monkeypatch) -> dict:
    """A report from before there was the column `several`, which is there now."""
    before = report_of(2, 1, 0)
    for module in (report, reading, compare):
        monkeypatch.setattr(module, "PICTURES", (*PICTURES, SEVERAL))
    return json.loads(as_text(before))


def test_a_column_is_counted_compared_and_read_by_its_row(earlier):
    now = report_of(2, 1, 0)
    assert now["summary"]["several"] == 1 and "several" not in earlier["summary"]
    assert parsed("now", as_text(now)) == now
    text = compare.comparison_table(compare.compare({"a": now, "b": now}))
    assert "| with several detections |" in text
    now["summary"]["several"] = 2
    with pytest.raises(CompareError, match="'b' contradicts itself: several is 2 in its summary"):
        compare.compare({"a": report_of(2, 1, 0), "b": now})


def test_a_report_of_an_earlier_version_lacks_a_column_and_says_no_zero(earlier):
    found = compare.compare({"before": parsed("x", as_text(earlier)), "now": report_of(2, 1, 0)})
    assert "several" not in found["audits"][0] and found["audits"][1]["several"] == 1
    lines = compare.comparison_table(found).splitlines()
    rows = [[cell.strip() for cell in line.split("|")] for line in lines]
    assert {row[1]: row[-2] for row in rows if row[1:2] in (["before"], ["now"])} == {
        "before": "-",
        "now": "1",
    }


def test_a_column_of_a_class_may_be_absent_too():
    older = report_of(1)
    for each in older["summary"]["classes"].values():
        del each["rate_95"]
    found = compare.compare({"a": parsed("a", as_text(older)), "b": report_of(1)})
    label = HIT["class"]
    assert (
        "rate_95" not in found["classes"][label]["a"] and "rate_95" in found["classes"][label]["b"]
    )
    del older["summary"]["classes"][label]
    with pytest.raises(CompareError, match="'a' contradicts itself: classes is"):
        compare.compare({"a": older, "b": report_of(1)})


@pytest.mark.parametrize("key", [each.key for each in PICTURES if each.first])
def test_what_every_version_had_is_still_needed(key):
    found = report_of(1)
    del found["summary"][key]
    with pytest.raises(CompareError, match=f"`summary.{key}` is missing"):
        parsed("a", as_text(found))


def test_no_two_columns_have_one_key():
    for table in (PICTURES, CLASSES, columns.FILES):
        assert len({each.key for each in table}) == len(table)
    assert replace(SEVERAL, key="x").head == SEVERAL.head


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, "-"), (0, "0.0 %"), (0.5, "50.0 %"), (1, "100.0 %"), (0.00003, "0.003 %"),
        (0.0005, "0.1 %"), (-0.0004, "-0.04 %"), (1e-12, "0.000000 %"),
    ],
)  # fmt: skip
def test_no_share_of_something_is_shown_as_none(value, words):
    assert share(value) == words


def test_an_interval_is_shown_like_a_share():
    assert span([0.5, 1]) == "50.0 % to 100.0 %" and span([-0.5, 0.5], "+") == "-50.0 % to +50.0 %"
