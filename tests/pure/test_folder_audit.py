"""What a folder audit gives: marked pictures, a page, a gate, and mistakes told in a line."""

import json
import re

import numpy as np
import pytest
from modular_safety_lora.audit.charts import plots, summary_chart
from modular_safety_lora.audit.folders import workers as folder
from modular_safety_lora.audit.report import UNSEEN
from modular_safety_lora.audit.words import in_words
from picture_folders import audited
from PIL import Image
from skimage import data


def test_flagged_pictures_are_written_with_what_counts_drawn_in(tmp_path):
    place, marked = tmp_path / "pictures", tmp_path / "marked"
    (place / "below").mkdir(parents=True)
    Image.fromarray(data.astronaut()).save(place / "below" / "face.png")
    Image.fromarray(data.coffee()).save(place / "cup.png")
    audited(
        place,
        "--preset",
        "faces",
        "--output",
        tmp_path / "r.json",
        "--annotate",
        marked,
        "--workers",
        1,
    )
    written = [path for path in marked.rglob("*") if path.is_file()]
    assert [path.name for path in written] == ["face.png.png"] and written[0].parent.name == "below"
    assert (np.asarray(Image.open(written[0])) != data.astronaut()).any()


def test_the_page_has_the_figures_and_escapes_what_files_are_called(tmp_path):
    place = tmp_path / "pictures"
    place.mkdir()
    Image.fromarray(data.astronaut()).save(place / "<b>face.png")
    Image.fromarray(data.coffee()).save(place / "cup.png")
    (place / "bad&.jpg").write_bytes(b"bad")
    audited(
        place,
        "--preset",
        "faces",
        "--output",
        tmp_path / "r.json",
        "--html",
        tmp_path / "r.html",
        "--workers",
        1,
    )
    html = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert (
        "1 of 2" in html
        and "&lt;b&gt;face.png" in html
        and "<b>face.png" not in html
        and "bad&amp;.jpg" in html
    )
    assert html.count("<svg") == 2 and not re.search(
        r"<script [^>]*src|<link|@import|(src|href)=[\"']http", html
    )


def test_a_gate_closes_for_flagged_and_for_unreadable(tmp_path):
    place = tmp_path / "pictures"
    place.mkdir()
    Image.fromarray(data.coffee()).save(place / "cup.png")
    arguments = [
        place,
        "--preset",
        "faces",
        "--output",
        tmp_path / "r.json",
        "--workers",
        1,
        "--fail-over",
    ]
    audited(*arguments, 0)
    (place / "bad.jpg").write_bytes(b"bad")
    audited(*arguments, 0, code=2)
    summary = json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))["summary"]
    assert summary["verdict"].endswith("at these thresholds; 1 file could not be read")
    (place / "bad.jpg").unlink()
    Image.fromarray(data.astronaut()).save(place / "face.png")
    audited(*arguments, 0.4, code=2)
    audited(*arguments, 0.6)


def test_nothing_looked_at_is_not_clean(tmp_path, monkeypatch, capsys):
    def here(files, rules, *_):
        for each in files:
            yield folder.audit_files([each], rules)

    monkeypatch.setattr("modular_safety_lora.commands.audit.audit_parallel", here)
    place, page = tmp_path / "pictures", tmp_path / "r.html"
    place.mkdir()
    arguments = [place, "--output", tmp_path / "r.json", "--html", page]
    for file, content in ((None, b""), ("caption.txt", b"a cat"), ("bad.jpg", b"bad")):
        if file:
            (place / file).write_bytes(content)
        audited(*arguments, code=3)
        audited(*arguments, "--second-opinion", "all", "--output", tmp_path / "s.json", code=3)
        audited(*arguments, "--fail-over", "1", code=3)
        said = capsys.readouterr().out
        assert "no picture was looked at" in said and "nothing detected" not in said
        html = page.read_text(encoding="utf-8")
        assert "No picture was looked at" in html and "Nothing was detected" not in html
        summary = json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))["summary"]
        assert summary["verdict"].startswith(UNSEEN) and summary["flagged_rate"] is None
        assert in_words(summary).startswith("**No picture was looked at**")
    Image.fromarray(data.coffee()).save(place / "cup.png")
    audited(*arguments)


def test_charts_take_any_name_and_any_number_of_rows():
    """matplotlib reads what stands between two `$` as a formula, and fails on most."""
    rate = {"flagged_rate": 0.5, "flagged_rate_95": [0.1, 0.9], "images": 2}
    for names in (
        ["$x_{$", "\\frac{$", "a\nb", "|", "\0", "$", "\ud800", "\n" * 99, "w" * 999],
        map(str, range(3000)),
    ):
        summary = rate | {
            "flagged": 1,
            "categories": dict.fromkeys(names, rate),
            "classes": {name: {"rate": 0.5, "rate_95": [0.1, 0.9]} for name in ("$^$\ud800", "|")},
            "thresholds": {"$^$\ud800": 0.5},
            "flagged_by_threshold": [[0.5, 0.5]],
        }
        drawn = summary_chart(summary, "$x_{$ \udcff")
        assert drawn.width == 1000 and drawn.height < 2500 and len(plots(summary)) == 3
        assert max(map(len, plots(summary))) < 300_000, "no bar for each of thousands"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["absent"], "1 of 1 path not found .first: absent."),
        ([".", "--preset", "nude"], "There is no audit preset 'nude'"),
        ([".", "--preset-file", "absent.json"], "absent.json: the file of presets can't be read"),
        ([".", "--second-opinion", "nude"], "There is no audit preset 'nude'"),
        ([".", "--classes", " , "], "The preset 'strict' counts no class"),
        ([".", "--detectors", "absent.json"], "absent.json: the file of detectors can't be read"),
        ([".", "--detectors", "bad.json"], "bad.json: the file of detectors can't be read"),
        ([".", "--detectors", "twice.json"], "twice.json: .* .`a` is there 2 times"),
        ([".", "--detectors", "list.json"], "list.json: detectors must be an object"),
        ([".", "--detectors", "entry.json"], "The detector 'a' in entry.json: it needs a `kind`"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_line(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    twice = '{"a": {}, "a": {}}'
    for name, text in (("bad", "{"), ("list", "[]"), ("entry", '{"a": {}}'), ("twice", twice)):
        (tmp_path / f"{name}.json").write_text(text, encoding="utf-8")
    audited(*arguments, "--output", tmp_path / "r.json", code=1)
    error = capsys.readouterr().err
    assert len(error.strip().splitlines()) == 1 and re.search(message, error)
