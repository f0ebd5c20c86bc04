"""Compare Audits: counts by hand, statistics by statsmodels, pictures censored, and refusals."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from modular_safety_lora.audit import censor, sheet
from modular_safety_lora.audit.compare import compare, comparison_table, differing
from modular_safety_lora.audit.compared_chart import chart
from modular_safety_lora.audit.detectors.registry import find
from modular_safety_lora.audit.opinion import judge
from modular_safety_lora.audit.presets import PRESETS
from modular_safety_lora.audit.reading import CompareError
from modular_safety_lora.audit.report import Tally
from modular_safety_lora.nodes.compare_audits import CompareAudits
from modular_safety_lora.nodes.nudity_audit import NudityAudit
from PIL import Image
from skimage import data
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

NAMES = ["base", "safe", "sequential", "modular"]


def report_of(flags, preset="strict", keys=None) -> dict:
    """An audit report in which these pictures are flagged."""
    hit = {"class": "ANUS_EXPOSED", "score": 0.9, "box": [2, 2, 4, 4]}
    results = [judge([hit] if flag else [], PRESETS[preset]) for flag in flags]
    if keys:
        results = [{"key": key, **result} for key, result in zip(keys, results, strict=True)]
    return {"images": results, "summary": Tally(PRESETS[preset]).of(results).summary(find())}


def random_reports(count: int, total: int = 200) -> dict[str, dict]:
    rng = np.random.default_rng(count)
    return {f"audit {place}": report_of(rng.random(total) < rng.random()) for place in range(count)}


@pytest.mark.parametrize("count", [2, 3, 6])
def test_pairs_are_tested_as_statsmodels_tests_them(count):
    reports = random_reports(count)
    found = compare(reports)
    assert len(found["pairs"]) == count * (count - 1) // 2
    for pair in found["pairs"]:
        one, two = (
            np.array([image["flagged"] for image in reports[pair[side]]["images"]])
            for side in ("first", "second")
        )
        counts = [(one & two).sum(), (one & ~two).sum(), (~one & two).sum(), (~one & ~two).sum()]
        assert [pair[name] for name in ("both", "only_first", "only_second", "neither")] == counts
        assert pair["p"] == pytest.approx(mcnemar([counts[:2], counts[2:]], exact=True).pvalue)
        assert pair["difference"] == pytest.approx(one.mean() - two.mean())
        assert pair["difference_95"][0] < pair["difference"] < pair["difference_95"][1]
    holm = multipletests([pair["p"] for pair in found["pairs"]], method="holm")[1]
    assert [pair["p_holm"] for pair in found["pairs"]] == pytest.approx(holm)
    verdicts = np.array(
        [[image["flagged"] for image in report["images"]] for report in reports.values()]
    )
    assert found["changed"] == np.flatnonzero(verdicts.any(0) != verdicts.all(0)).tolist()


def test_the_table_has_what_was_counted():
    found = compare({"base": report_of([1, 1, 1, 0]), "safe": report_of([0, 0, 1, 0])})
    text = comparison_table(found)
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()]
    assert ["base", "3", "75.0 %", "30.1 % to 95.4 %", "3"] in rows
    pair = next(row for row in rows if row[:1] == ["base against safe"])
    assert pair[1:4] == ["2", "0", "+50.0 %"] and pair[5:] == ["0.5", "0.5"]
    assert ["ANUS_EXPOSED", "3", "1"] in rows and "preset strict, NudeNet 3." in text


@pytest.mark.parametrize(
    ("count", "words"),
    [(0, "no picture's verdict differs"), (1, "1 picture differs"), (2, "2 pictures differ")],
)
def test_one_picture_is_no_pictures(count, words):
    assert differing(count) == words
    found = compare({"base": report_of([1] * (count + 1)), "safe": report_of([0] * (count + 1))})
    assert comparison_table(found).startswith(f"{count + 1} picture{'s' if count else ''} each, ")


def test_pictures_of_a_prompt_set_are_paired_by_key():
    base, safe = report_of([1, 0, 0], keys="abc"), report_of([0, 0, 1], keys="cba")
    assert compare({"base": base, "safe": safe})["changed"] == []
    more = compare({"base": base, "safe": report_of([1, 0, 0], keys="abd")})
    assert more["unpaired"] == {"base": ["c"], "safe": ["d"]} and more["changed"] == []


def test_what_cannot_be_compared_says_why():
    one = report_of([1, 0])
    with pytest.raises(CompareError, match="Two to 6 audits can be compared, not 1"):
        compare({"one": one})
    with pytest.raises(CompareError, match="not 7"):
        compare({str(place): one for place in range(7)})
    with pytest.raises(CompareError, match="different numbers of pictures: {'one': 2, 'two': 3}"):
        compare({"one": one, "two": report_of([1, 0, 0])})
    with pytest.raises(
        CompareError, match="not audited in the same way: preset is faces and strict"
    ):
        compare({"one": one, "two": report_of([1, 0], "faces")})


@pytest.mark.parametrize("count", [2, 6])
def test_the_chart_shows_more_for_more(count):
    drawn = np.asarray(chart(compare(random_reports(count))))
    assert (
        drawn.shape[1] == 1200
        and drawn.shape[0] >= 400
        and len(np.unique(drawn.reshape(-1, 3), axis=0)) > 100
    )


def test_a_chart_with_no_counted_class_draws_no_axis_of_classes_and_no_legend():
    drawn = np.asarray(chart(compare({"a": report_of([0, 0]), "b": report_of([0, 0])})))
    inked = (drawn < 250).any(axis=2)[:-60, 500:]  # right of the rates, above the line below
    rows, columns = np.nonzero(inked)
    assert drawn.shape[1] == 1200 and len(rows), "it says that there is nothing"
    assert rows.max() - rows.min() < 30 and columns.max() - columns.min() < 400, "one line of text"


def grown(values: list, prefix: str) -> dict:
    return {f"{prefix}{place}": value for place, value in enumerate(values)}


def test_the_node_compares_audits_of_the_audit_node_and_shows_changed_pictures_censored():
    face = torch.from_numpy(data.astronaut().astype(np.float32) / 255)
    cup = torch.from_numpy(
        np.array(Image.fromarray(data.coffee()).resize((512, 512)), dtype=np.float32) / 255
    )
    batches = [torch.stack([face, face, cup]), torch.stack([face, cup, cup])]
    reports = [
        NudityAudit.execute(batch, preset="faces", threshold=0.0, action="none").args[2]
        for batch in batches
    ]
    output = CompareAudits.execute(
        grown(reports, "report"), names="base, safe, unused", images=grown(batches, "images")
    )
    drawn, changed, text, report = output.args
    found = json.loads(report)
    assert [each["name"] for each in found["audits"]] == ["base", "safe"] and found["changed"] == [
        1
    ]
    assert drawn.shape[0] == 1 and drawn.shape[3] == 3 and "base against safe" in text
    page = Path(text.rpartition("- Page: ")[2]).read_text(encoding="utf-8")
    assert "base and safe compared" in page and page.count("<img ") == 2
    assert changed.shape[2] == sheet.SIDE + 2 * (sheet.CELL + sheet.GAP) + sheet.GAP
    left, top = sheet.SIDE, 2 * sheet.HEAD
    cell = changed[0, top + 5 : top + sheet.CELL - 5, left + 5 : left + sheet.CELL - 5]
    assert (
        NudityAudit.execute(cell[None], preset="faces", threshold=0.0, action="none").args[1]
        is True
    ), "the face can be seen on the sheet"
    assert (cell == 0).all(dim=2).float().mean() > 0.02, "and is black there"
    plain = censor.apply(
        batches[0][1:2], {"images": [json.loads(reports[0])["images"][1]]}, "black"
    )
    assert plain.shape == (1, 512, 512, 3)


def test_the_node_says_what_it_lacks():
    text = json.dumps(report_of([1, 0]))
    both, picture = grown([text, text], "report"), torch.zeros(2, 8, 8, 3)
    with pytest.raises(CompareError, match="'b' is not an audit report"):
        CompareAudits.execute(grown([text, "{}"], "report"), names="a, b")
    with pytest.raises(CompareError, match="its own name"):
        CompareAudits.execute(both, names="a, a")
    with pytest.raises(CompareError, match="2 audits and 1 batch of"):
        CompareAudits.execute(both, names="a, b", images=grown([picture], "images"))
    with pytest.raises(CompareError, match="'b' audited 2 pictures, and 1 came in"):
        CompareAudits.execute(both, names="a, b", images=grown([picture, picture[:1]], "images"))
    assert (
        json.loads(CompareAudits.execute(both, names="a").args[3])["audits"][1]["name"] == "audit 2"
    )
    shown = CompareAudits.execute({**both, "report2": None}, names="a, b").args[1]
    assert shown.shape[1] < 300  # no pictures, no rows


def test_the_sheet_shows_the_pictures_that_are_paired():
    """The batch of an audit whose pictures come in another order, one more among them."""
    base, safe = report_of([1, 0], keys="ab"), report_of([0, 1, 0], keys="bxa")
    values = {"a": 0.25, "b": 0.5, "x": 0.75}
    batches = [
        torch.stack([torch.full((8, 8, 3), values[each["key"]]) for each in report["images"]])
        for report in (base, safe)
    ]
    texts = [json.dumps(report) for report in (base, safe)]
    output = CompareAudits.execute(
        grown(texts, "report"), names="base, safe", images=grown(batches, "images")
    )
    assert json.loads(output.args[3])["changed"] == [0]
    middle = sheet.CELL // 2
    row = output.args[1][0, 2 * sheet.HEAD + middle]
    assert row[sheet.SIDE + sheet.CELL + sheet.GAP + middle, 0] == pytest.approx(0.25, abs=0.01)


def test_a_long_sheet_is_cut_and_says_so():
    flags = [1] * 40
    reports = {"a": report_of(flags), "b": report_of([0] * 40)}
    images = {name: torch.zeros(40, 16, 16, 3) for name in reports}
    drawn = sheet.contact_sheet(compare(reports)["changed"], reports, images)
    assert drawn.height == 2 * sheet.HEAD + sheet.MOST_ROWS * (sheet.CELL + sheet.GAP) + sheet.GAP


def test_the_command_line_gives_the_nodes_comparison(tmp_path, capsys):
    from modular_safety_lora.commands import main

    reports = {"base": report_of([1, 1, 1, 0]), "safe": report_of([0, 0, 1, 0])}
    files = {name: tmp_path / f"{name}.json" for name in reports}
    for name, report in reports.items():
        files[name].write_text(json.dumps(report), encoding="utf-8")
    named = [f"{name}={file}" for name, file in files.items()]
    assert main(["compare", *named, "--output", str(tmp_path / "out")]) == 0
    assert comparison_table(compare(reports)) in capsys.readouterr().out
    assert json.loads(
        (tmp_path / "out" / "comparison.json").read_text(encoding="utf-8")
    ) == compare(reports)
    assert Image.open(tmp_path / "out" / "chart.png").width == 1200
    files["safe"].write_text("{}", encoding="utf-8")
    for wrong, why in (
        (named[:1], "Two to 6"),
        ([named[0]] * 2, "its own name"),
        (named, "is not an audit report"),
    ):
        assert main(["compare", *wrong, "--output", str(tmp_path / "out")]) == 1
        assert why in capsys.readouterr().err
