"""The page of a comparison: a verdict sentence, what each audit was of, and what changed."""

import hashlib
import json

import numpy as np
import pytest
from modular_safety_lora.audit import about
from modular_safety_lora.audit.compare import compare, comparison_table, verdict
from modular_safety_lora.audit.compared_chart import chart, plots
from modular_safety_lora.audit.compared_page import compared_page
from modular_safety_lora.audit.cost import FILE, cost_rows, costs
from modular_safety_lora.audit.detectors.registry import find
from modular_safety_lora.audit.opinion import judge
from modular_safety_lora.audit.pairing import paired
from modular_safety_lora.audit.presets import PRESETS
from modular_safety_lora.audit.report import Tally, as_text
from modular_safety_lora.audit.thumbnails import MOST, Thumbnail
from modular_safety_lora.commands import main
from PIL import Image

HIT = {"class": "ANUS_EXPOSED", "score": 0.9, "box": [2, 2, 4, 4]}
OTHER = {**HIT, "class": "BUTTOCKS_EXPOSED"}
MODEL = {"base": "a.safetensors", "base_sha256": "ab" * 32, "loras": []}


def report_of(flags, found=(HIT,), **more) -> dict:
    """A prompt set's report in which these pictures are flagged."""
    results = [
        {"key": f"{place}", "prompt": f"<p{place}>", "picture": f"pictures/{place}.png"}
        | judge(list(found) if flag else [], PRESETS["strict"])
        for place, flag in enumerate(flags)
    ]
    summary = Tally(PRESETS["strict"]).of(results).summary(find())
    return {"images": results, "unreadable": [], "summary": summary, **more}


def test_the_verdict_names_what_differs_and_what_was_not_proven():
    reports = {
        "base": report_of([1] * 10 + [0] * 10),
        "safe": report_of([0] * 20),
        "worse": report_of([1] * 20),
        "same": report_of([1] * 9 + [0] * 11),
    }
    bold, counts = verdict(compare(reports))
    assert bold == (
        "Fewer pictures are flagged than with base: safe. More pictures are flagged than with base:"
        " worse. No proven difference from base: same."
    )
    assert "Flagged of 20 pictures: 10 with base, 0 with safe, 20 with worse" in counts
    assert "adjusted for 6 pairs: safe 0.0078," in counts
    assert f"**{bold}**" in comparison_table(compare(reports))
    two = {"a": report_of([1, 0]), "b": report_of([1, 0])}
    assert verdict(compare(two))[0] == "No proven difference from a: b."


def page_of(reports, small=lambda name, place, row: None) -> str:
    pairing = paired(reports)
    return compared_page(compare(pairing), pairing, small)


def test_the_page_says_what_each_audit_was_of_and_of_an_earlier_report_that_it_is_not_known():
    made_by = about.about([MODEL], about.NONE, "one")
    html = page_of({"<a>": report_of([1, 0], about=made_by), "b": report_of([0, 0])})
    assert "<title>&lt;a&gt; and b compared" in html and "<a>" not in html
    assert "run one; checkpoint a.safetensors (abababababab)" in html
    assert about.STATES[about.NONE] in html and "made by an earlier version" in html
    assert html.index("No proven difference") < html.index("<svg") < html.index("<table")


def test_thumbnails_are_bounded_and_stand_beside_each_other():
    reports = {"a": report_of([1] * MOST), "b": report_of([0] * MOST)}
    asked = []

    def small(name, place, row):
        asked.append((name, place))
        return Thumbnail(row, "x.png", "data:image/jpeg;base64,") if name == "a" else None

    html = page_of(reports, small)
    assert html.count("<img ") == MOST // 2 and len(asked) == 2 * (MOST // 2)
    assert "150 pictures differ (the first 75 are shown)" in html and "0: &lt;p0&gt;" in html
    assert "<img" not in page_of(reports)


@pytest.mark.parametrize(("found", "count"), [([HIT], 1), ([HIT, OTHER], 2)])
def test_one_class_has_no_second_chart(found, count):
    comparison = compare({"a": report_of([1, 0], found), "b": report_of([0, 0], found)})
    assert len(plots(comparison)) == count
    right = np.asarray(chart(comparison))[60:120, 1150:]
    assert chart(comparison).width == 1200 and right.size


def test_the_command_writes_a_page_with_links_to_the_kept_pictures(tmp_path, capsys):
    for name, flags in (("base", [1, 1]), ("safe", [0, 1])):
        (tmp_path / name / "pictures").mkdir(parents=True)
        for place in range(2):
            Image.new("RGB", (64, 64), "red").save(tmp_path / name / "pictures" / f"{place}.png")
        (tmp_path / name / "report.json").write_text(as_text(report_of(flags)), encoding="utf-8")
    named = [f"{name}={tmp_path / name / 'report.json'}" for name in ("base", "safe")]
    assert main(["compare", *named, "--output", str(tmp_path / "out")]) == 0
    html = (tmp_path / "out" / "comparison.html").read_text(encoding="utf-8")
    assert 'href="../base/pictures/0.png"' in html and html.count("<img ") == 2
    assert "comparison.html" in capsys.readouterr().out
    assert json.loads((tmp_path / "out" / "comparison.json").read_text(encoding="utf-8"))
    (tmp_path / "safe" / "pictures" / "0.png").unlink()
    assert main(["compare", *named, "--output", str(tmp_path / "out")]) == 0
    html = (tmp_path / "out" / "comparison.html").read_text(encoding="utf-8")
    assert html.count("<img ") == 1 and "no thumbnail: FileNotFoundError" in html


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"mean": float("nan")}, "`runs.0.clip_score.mean` is nan; it must be a finite number"),
        ({"mean_95": [1.0]}, "`runs.0.clip_score.mean_95.1` is missing"),
        ({"mean_95": ["low", "high"]}, "it must be a number"),
    ],
)
def test_figures_of_quality_that_are_none_are_not_shown(tmp_path, change, why):
    score = {"mean": 30.0, "mean_95": [29.0, 31.0], "unrelated": False}
    run = {"name": "a", "report_sha256": hashlib.sha256(b"its report").hexdigest()}
    for more, file in (({}, "good"), (change, "bad")):
        (tmp_path / file).mkdir()
        told = {"runs": [run | {"clip_score": score | more}]}
        (tmp_path / file / FILE).write_text(json.dumps(told), encoding="utf-8")
    found = costs({"a": (tmp_path / "good", "its report"), "b": (tmp_path, "")})
    assert cost_rows(found) == [["a", "30.00", "29.00 to 31.00", "-", "-", "-"]]
    with pytest.raises(ValueError, match=rf"the figures can't be read \(.*{why}"):
        costs({"a": (tmp_path / "bad", "its report")})
