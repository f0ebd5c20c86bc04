"""What of a run can't be measured is in no figure, and is counted and named."""

import math

import numpy as np
import pytest
from modular_safety_lora.evaluation.quality.embeddings import QualityError
from modular_safety_lora.evaluation.quality.encoders import Encoders
from modular_safety_lora.evaluation.quality.robustness import robustness
from PIL import Image
from quality_runs import measure, pictures, rewritten, run_folder


def test_what_is_left_out_is_counted_and_named(tmp_path):
    base = run_folder(tmp_path / "base", pictures())
    safe = run_folder(tmp_path / "safe", [*pictures()[:5], None], flagged=(4,))
    (safe / "pictures" / "000001.png").write_bytes(b"no picture")
    (safe / "pictures" / "000002.png").unlink()

    def hide(report):
        report["images"][2]["seed"] = 99
        report["images"][4]["censored"] = True
        report["unreadable"] = [{"key": "000007", "unreadable": "out of memory"}]

    rewritten(safe, hide)
    found = measure(safe, against=base)
    run, text = found.report["runs"][0], found.words
    assert run["pictures"] == 2 == run["clip_score"]["pictures"]
    left = {each["first"]: why for why, each in run["left_out"].items()}
    assert left.keys() == {f"00000{place}" for place in (1, 2, 5, 6, 7)}
    assert "5 pictures left out." in text and "its file is gone (first: 000002)" in text
    assert "censored" in left["000005"] and "no file of it was kept" in left["000006"]
    assert found.report["unpaired"] == {
        "another prompt, seed or size there": {"pictures": 1, "first": "000003"}
    }
    assert found.report["change"]["pairs"] == 1 and found.report["cmmd"] is None
    assert "fewer than two pictures" in text
    page = (safe / "quality.html").read_text(encoding="utf-8")
    assert "its file is gone (first: 000002)" in page


def test_a_flagged_picture_of_an_earlier_version_may_have_been_censored(tmp_path):
    safe = run_folder(tmp_path / "safe", pictures(), flagged=(2,))
    rewritten(safe, lambda report: [each.pop("censored") for each in report["images"]])
    run = measure(safe).report["runs"][0]
    assert run["pictures"] == 5 and [e["first"] for e in run["left_out"].values()] == ["000003"]


def test_a_folder_of_photographs_needs_no_report_and_gets_no_file(tmp_path):
    photos, safe = tmp_path / "photos", run_folder(tmp_path / "safe", pictures(12))
    photos.mkdir()
    for place, each in enumerate(pictures(15, seed=5)):
        Image.fromarray(each).save(photos / f"{place}.jpg")
    (photos / "0.txt").write_text("a photograph", encoding="utf-8")
    (photos / "1.txt").write_bytes(b"\xff\xfe\xff")
    (photos / "notes.md").write_text("no picture", encoding="utf-8")
    before = sorted(photos.iterdir())
    found = measure(safe, against=photos)
    run = found.report["runs"][1]
    assert run["pictures"] == 14 and run["without_prompt"] == 13
    assert run["clip_score"]["pictures"] == 1 and run["report_sha256"] is None
    assert found.report["change"] is None is found.report["difference"]
    assert found.report["unpaired"] == {}
    assert found.report["cmmd"]["pictures"] == [12, 14] and sorted(photos.iterdir()) == before
    assert "13 pictures of photos without a prompt" in found.words
    assert measure(photos, tmp_path / "out").report["runs"][0]["name"] == "photos"


def test_one_run_by_two_names_was_not_tuned(tmp_path):
    run = run_folder(tmp_path / "harmful", [None] * 3)
    for again in (run, run / ".." / run.name):
        found = robustness(run, again)
        assert found["robustness"] is None and found["why"] == "harmful and tuned are one run"


def test_no_picture_is_no_number(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(QualityError, match=r"no picture can be measured \(there is none\)"):
        measure(tmp_path / "empty")
    with pytest.raises(QualityError, match="there is no such folder"):
        measure(tmp_path / "gone")
    with pytest.raises(QualityError, match="against itself"):
        measure(tmp_path, against=tmp_path / "empty" / "..")
    none = run_folder(tmp_path / "none", [None, None])
    with pytest.raises(
        QualityError, match=r"2 pictures: no file of it was kept .*keep is 'all, as"
    ):
        measure(none)
    broken = run_folder(tmp_path / "broken", pictures(2))
    for file in (broken / "pictures").iterdir():
        file.write_bytes(b"")
    with pytest.raises(QualityError, match="none of its pictures can be measured .*2 pictures"):
        measure(broken)
    outside = run_folder(tmp_path / "outside", pictures(1))
    rewritten(outside, lambda report: report["images"][0].update(picture="../empty/a.png"))
    with pytest.raises(QualityError, match="not the name of a file in this folder"):
        measure(outside)


def test_an_embedding_that_is_not_a_number_is_in_no_figure(tmp_path, monkeypatch):
    run, own = run_folder(tmp_path / "run", pictures()), Encoders.picture
    white = np.zeros((96, 96, 3), np.uint8)
    Image.fromarray(white).save(run / "pictures" / "000002.png")

    def picture(self, pixels):
        found = own(self, pixels)
        return found * math.nan if not pixels.any() else found

    monkeypatch.setattr(Encoders, "picture", picture)
    monkeypatch.setattr(
        Encoders,
        "text",
        lambda self, prompt, own=Encoders.text: (
            own(self, prompt) * (0 if prompt == "a tree" else 1)
        ),
    )
    found = measure(run).report["runs"][0]
    assert found["pictures"] == 5 and found["clip_score"]["pictures"] == 4
    assert {why: each["first"] for why, each in found["left_out"].items()} == {
        "its embedding is not a number": "000002",
        "the embedding of its prompt is not a number": "000006",
    }
