"""What a folder audit gives: marked pictures, a page, a gate, and mistakes told in a line."""

import re

import numpy as np
import pytest
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
        r"<script|<link|@import|(src|href)=[\"']http", html
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
    (place / "bad.jpg").unlink()
    Image.fromarray(data.astronaut()).save(place / "face.png")
    audited(*arguments, 0.4, code=2)
    audited(*arguments, 0.6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["absent"], "1 of 1 paths do not exist .first: absent."),
        ([".", "--preset", "nude"], "There is no audit preset 'nude'"),
        ([".", "--preset-file", "absent.json"], "absent.json: this can't be read as presets"),
        ([".", "--second-opinion", "nude"], "There is no audit preset 'nude'"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_line(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    audited(*arguments, "--output", tmp_path / "r.json", code=1)
    error = capsys.readouterr().err
    assert len(error.strip().splitlines()) == 1 and re.search(message, error)
