"""The pages of audits: what they are about comes first, thumbnails hide what is counted."""

import base64
import io
import json
import re

import numpy as np
import pytest
from modular_safety_lora.audit import about, thumbnails
from modular_safety_lora.audit.about import STATES, facts, in_a_line, in_short
from modular_safety_lora.audit.charts import plots
from modular_safety_lora.audit.columns import counted
from modular_safety_lora.audit.folders import export
from modular_safety_lora.audit.page import Shown, page
from modular_safety_lora.audit.presets import PRESETS
from modular_safety_lora.audit.report import audit
from modular_safety_lora.audit.thumbnails import Thumbnail, of_file, of_pixels
from modular_safety_lora.audit.words import in_words
from modular_safety_lora.drawing.figures import align, new_figure
from modular_safety_lora.storage.names import link
from picture_folders import audited
from PIL import Image
from skimage import data

LORAS = [
    {"name": "safe.safetensors", "role": "safety", "sha256": "ab" * 32, "strength": 1.0},
    {
        "name": "style.safetensors", "role": "task", "sha256": "cd" * 32,
        "strength": 0.8, "strength_clip": 0.5,
    },
]  # fmt: skip
MODEL = {"base": "base.safetensors", "base_sha256": "01" * 32, "loras": LORAS}


def told(**more) -> dict:
    return {**about.about([MODEL], about.INTACT, "safe run"), **more}


def judged(pixels: np.ndarray) -> dict:
    return audit([pixels], PRESETS["faces"])["images"][0]


def read(data_address: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(data_address.partition(",")[2])))


def test_what_a_report_is_about_names_files_strengths_and_short_digests():
    assert facts(told(date="2026-01-02")) == [
        ("run", "safe run"),
        ("checkpoint", "base.safetensors (010101010101)"),
        ("safety LoRA", "safe.safetensors (abababababab) at 1"),
        ("task LoRA", "style.safetensors (cdcdcdcdcdcd) at 0.8 / 0.5"),
        ("date", "2026-01-02"),
    ]
    assert "task LoRA **style.safetensors (cdcdcdcdcdcd) at 0.8 / 0.5**" in in_a_line(told())
    assert in_a_line(about.about()) == "" and in_short(about.about()) == STATES[about.PICTURES]
    assert in_short(told()).endswith(STATES[about.INTACT])
    assert in_short(None).startswith("made by an earlier version")
    patched = {"base": None, "base_sha256": None, "loras": [], "patched": 1}
    assert ("other changes", "1 weight patched") in facts(about.about([patched], about.NONE))
    with pytest.raises(ValueError, match="safety_lora is 'whole'; it must be one of intact, "):
        about.about([], "whole")


def test_the_words_say_first_what_they_are_about_and_then_the_verdict():
    summary = audit([data.coffee()], PRESETS["strict"])["summary"]
    first, blank, second, *rest = in_words(summary, about=told()).splitlines()
    assert first.startswith("run **safe run**; checkpoint **base") and not blank
    assert second.startswith("**None of 1 picture flagged**")
    assert f"- {STATES[about.INTACT]}" in rest
    alone = in_words(summary, about=about.about())
    assert alone.startswith("**None of 1") and STATES[about.PICTURES] in alone


@pytest.mark.parametrize("size", [(512, 512), (90, 90), (1200, 400)])
def test_a_thumbnail_hides_the_face_that_is_counted(size):
    pixels = np.asarray(Image.fromarray(data.astronaut()).resize(size))
    row = judged(data.astronaut())
    across, down = size[0] / 512, size[1] / 512
    scaled = [
        {**each, "box": [int(v * (across, down)[place % 2]) for place, v in enumerate(each["box"])]}
        for each in row["detections"]
    ]
    small = read(of_pixels({**row, "detections": scaled}, pixels))
    plain = read(of_pixels({**row, "flagged": False}, pixels))
    assert max(small.size) <= thumbnails.SIDE and small.size == plain.size
    x, y, w, h = (
        round(v * small.size[place % 2] / 512)
        for place, v in enumerate(row["detections"][0]["box"])
    )
    apart = np.abs(np.asarray(small, int) - np.asarray(plain, int)).max(axis=2)
    assert np.median(apart[y : y + h, x : x + w]) > 8, "the face is blurred"
    assert np.median(apart[: max(1, y - h)]) < 8, "the rest is as it was"
    large = np.asarray(small.resize((512, 512), Image.Resampling.BICUBIC))
    assert not counted(judged(large)), "and is not found any more"


def test_a_picture_that_is_gone_has_a_reason_and_no_thumbnail(tmp_path):
    row = judged(data.coffee())
    (tmp_path / "text.png").write_text("x")
    (tmp_path / "plain.txt").write_text("x")
    assert "not a picture format" in of_file(row, tmp_path / "text.png", "x").fault
    assert of_file(row, tmp_path / "plain.txt", "x").fault == "it is no picture any more"
    gone = of_file(row, tmp_path / "gone.png", "x")
    assert "FileNotFound" in gone.fault and not gone.data


def test_a_link_is_relative_and_escaped(tmp_path):
    assert link(tmp_path / "a" / "b#?%é.png", tmp_path) == "a/b%23%3F%25%C3%A9.png"
    assert link(tmp_path / "javascript:x.png", tmp_path) == "javascript%3Ax.png"
    assert link(tmp_path / "x.png", tmp_path / "below") == "../x.png"


def test_a_folder_page_shows_pictures_censored_with_links_and_folds_its_settings(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(export, "MOST", 4)
    place = tmp_path / "pictures"
    place.mkdir()
    Image.fromarray(data.astronaut()).save(place / "<i>face.png")
    for number in range(6):
        Image.new("RGB", (9, 9)).save(place / f"{number:02d}.png")
    more = ["--output", tmp_path / "r.json", "--html", tmp_path / "r.html", "--workers", 1]
    audited(place, "--preset", "faces", *more)
    html = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert html.count("<img ") == 4 and len(html) < 120_000
    assert "the first 4 of 7" in html
    assert html.index("%3Ci%3Eface.png") < html.index('href="pictures/00.png"'), "flagged first"
    assert STATES[about.PICTURES] in html and "<i>face" not in html
    assert html.index("1 of 7 pictures flagged") < html.index("<table") < html.index("<details>")
    assert html.index("<details>") < html.index("<pre>")
    report = json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))
    assert [*report] == ["images", "unreadable", "summary", "about"]
    assert report["about"]["safety_lora"] == about.PICTURES


def test_pages_of_two_arms_differ_in_their_titles_and_say_what_was_kept():
    summary = audit([data.coffee()], PRESETS["strict"])["summary"] | {
        "flagged_by_threshold": [[0.5, 0.0]],
        "prompts": {"file": "x.csv"},
        "unreadable": 0,
        "not_made": "",
    }
    html = page("Audit of x: safe run", told(), summary, Shown([], []), {"a": "<b>"}, note="x.csv")
    assert "<title>Audit of x: safe run" in html and "style.safetensors (cdcdcdcdcdcd)" in html
    assert "No picture was kept. To see them here, choose what to keep" in html
    assert "<b>&#34;" not in html and "&lt;b&gt;" in html
    gone = Thumbnail({"key": "1", "flagged": False}, "x.png", fault="it is empty")
    html = page("x", told(), summary, Shown([], [], [gone]), {})
    assert "no thumbnail: it is empty" in html and "<img" not in html


def test_one_class_or_category_has_no_plot_of_its_own():
    rate = {"flagged_rate": 0.5, "flagged_rate_95": [0.1, 0.9], "images": 2}
    each = {"rate": 0.5, "rate_95": [0.1, 0.9]}
    summary = rate | {"flagged": 1, "thresholds": {"a": 0.5}, "flagged_by_threshold": [[0.5, 0.5]]}
    assert len(plots(summary | {"classes": {"a": each}, "categories": {"x": rate}})) == 1
    two = {"classes": {"a": each, "b": each}, "categories": {"x": rate, "y": rate}}
    drawn = plots(summary | two)
    assert (
        len(drawn) == 3 and len({re.search(r'viewBox="0 0 (\S+) ', one)[1] for one in drawn}) == 1
    )


def test_plots_begin_and_end_at_one_place_whatever_their_labels():
    figures = [new_figure(5.6, 2) for _ in range(2)]
    for figure, label in zip(figures, ("short", "much, much longer than the other"), strict=True):
        figure.subplots().set_yticks([0], [label])
    align(figures)
    one, two = (figure.axes[0].get_position() for figure in figures)
    assert (one.x0, one.x1) == (two.x0, two.x1) and one.x0 > 0.3
