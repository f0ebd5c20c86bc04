"""A folder audit that is run again: what it looks at again, leaves out, and does not go on with."""

import json
import logging
import sqlite3
from pathlib import Path

import pytest
from modular_safety_lora.audit.folders import workers as folder
from modular_safety_lora.audit.folders.store import Store, StoreError, batched
from picture_folders import FACES, audited, rows_in, small_pictures
from PIL import Image
from skimage import data


def test_a_second_run_looks_only_at_what_is_new_or_changed(tmp_path, monkeypatch):
    place, output = tmp_path / "pictures", tmp_path / "r.json"
    small_pictures(place, 6)
    audited(place, "--preset", "faces", "--output", output, "--workers", 1)
    before = json.loads(output.read_text(encoding="utf-8"))
    looked = []

    def here(files, *more):
        for chunk in batched(files, 9):
            looked.append(chunk)
            yield folder.audit_files(chunk, FACES)

    monkeypatch.setattr("modular_safety_lora.commands.audit.audit_parallel", here)
    (place / "00000.jpg").unlink()
    Image.fromarray(data.astronaut()).save(place / "00001.jpg")
    Image.fromarray(data.coffee()).save(place / "new.png")
    audited(place, "--preset", "faces", "--output", output)
    assert [Path(path).name for path, _ in looked[0]] == ["00001.jpg", "new.png"]
    after = json.loads(output.read_text(encoding="utf-8"))
    names = [Path(image["path"]).name for image in after["images"]]
    assert names == ["00001.jpg", "00002.jpg", "00003.jpg", "00004.jpg", "00005.jpg", "new.png"]
    assert after["images"][1:5] == before["images"][2:] and after["images"][0]["flagged"]
    assert after["summary"]["rows_left_out"] == 1 and before["summary"]["rows_left_out"] == 0


def test_rows_of_other_folders_and_of_files_that_are_gone_stay_and_are_left_out(
    tmp_path, monkeypatch, capsys
):
    place, output = tmp_path / "pictures", tmp_path / "r.json"
    small_pictures(place / "a", 4)
    small_pictures(place / "b", 3)
    audited(place, "--preset", "faces", "--output", output, "--workers", 1)
    whole = json.loads(output.read_text(encoding="utf-8"))

    def nothing_left(files, *_):
        assert not list(files), "a file was looked at again"
        return []

    monkeypatch.setattr("modular_safety_lora.commands.audit.audit_parallel", nothing_left)
    (place / "b" / "00000.jpg").rename(tmp_path / "away.jpg")
    audited(place / "b", "--preset", "faces", "--output", output, "--html", tmp_path / "r.html")
    part = json.loads(output.read_text(encoding="utf-8"))
    assert part["images"] == whole["images"][5:] and part["summary"]["images"] == 2
    assert part["summary"]["rows_left_out"] == 5 and rows_in(tmp_path / "r.sqlite") == 7
    assert "5 rows of other files" in capsys.readouterr().out
    assert "5 rows of other files" in (tmp_path / "r.html").read_text(encoding="utf-8")
    (tmp_path / "away.jpg").rename(place / "b" / "00000.jpg")
    audited(place, "--preset", "faces", "--output", output)
    assert json.loads(output.read_text(encoding="utf-8")) == whole, (
        "what comes back needs no second look"
    )


@pytest.mark.parametrize("second", [(), ("--second-opinion", "faces")])
def test_another_preset_counts_what_was_detected_and_looks_at_nothing(
    tmp_path, monkeypatch, caplog, capsys, second
):
    """It gives the files of an audit that is made under that preset from the start."""
    caplog.set_level(logging.INFO)
    place, kept, fresh = tmp_path / "pictures", tmp_path / "kept.json", tmp_path / "fresh.json"
    small_pictures(place, 4)
    (place / "bad.jpg").write_bytes(b"bad")
    (place / "caption.txt").write_text("a cat", encoding="utf-8")
    audited(place, "--preset", "strict", *second, "--output", kept, "--workers", 1)
    others = tuple("all" if each == "faces" else each for each in second)
    asked = ("--preset", "faces", "--threshold", "0.3", *others)
    audited(place, *asked, "--output", fresh, "--workers", 1)
    capsys.readouterr()

    def looked(files, *_):
        assert not list(files)
        return []

    monkeypatch.setattr("modular_safety_lora.commands.audit.audit_parallel", looked)
    audited(place, *asked, "--output", kept)
    assert kept.read_bytes() == fresh.read_bytes()
    assert "6 pictures counted again by the preset faces" in caplog.text
    assert "6/6" in capsys.readouterr().err, "a total, and with it a rate and the time left"

    def flags(file):
        query = "select key, flagged, unreadable, data from pictures order by key"
        return sqlite3.connect(file).execute(query).fetchall()

    assert flags(kept.with_suffix(".sqlite")) == flags(fresh.with_suffix(".sqlite"))


def test_the_rows_of_another_audit_are_not_gone_on_with(tmp_path, capsys):
    small_pictures(tmp_path / "pictures", 2)
    audited(
        tmp_path / "pictures", "--preset", "faces", "--output", tmp_path / "r.json", "--workers", 1
    )
    output, drawn = tmp_path / "r.json", ("--annotate", tmp_path / "drawn")
    for other, said in (
        (
            ("--preset", "UnlearnDiffAtk from paths"),
            "preset (faces; now UnlearnDiffAtk from paths)",
        ),
        (("--preset", "faces", "--second-opinion", "all"), "second opinion (none; now all)"),
        (("--preset", "faces", "--frames", "1"), "frames (16; now 1)"),
        (("--preset", "strict", *drawn), "preset (faces; now strict)"),
    ):
        audited(tmp_path / "pictures", *other, "--output", output, code=1)
        assert f"holds 2 rows of an audit made with another {said}" in capsys.readouterr().err
    (tmp_path / "text.sqlite").write_text("no database, but long enough to be taken for one" * 20)
    with pytest.raises(StoreError, match="it is damaged, or is not a file of an audit"):
        Store(tmp_path / "text.sqlite", {})
