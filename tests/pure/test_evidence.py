"""The evidence log: its lines follow each other, and whatever was done to them is told."""

import datetime
import os
import shutil
import stat
from pathlib import Path

import pytest
from modular_safety_lora.evidence import files, lines, log
from modular_safety_lora.evidence.files import file_from, files_of, lines_in
from modular_safety_lora.evidence.lines import LONGEST, START, days_since, parsed
from modular_safety_lora.evidence.log import EvidenceError, Log
from modular_safety_lora.evidence.verify import read_lines, verify

MB = 2**20


def written(folder: Path, count: int = 12, most: int = 64 * MB) -> Path:
    """A log of so many lines of an event, and the line that begins a file."""
    new = Log(folder, most)
    for number in range(count):
        new.record("sampled", {"number": number, "user": "anna"})
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return written(tmp_path_factory.mktemp("log") / "log")


@pytest.fixture
def folder(made, tmp_path):
    return shutil.copytree(made, tmp_path / "log")


def newest(folder: Path) -> Path:
    return files_of(folder)[-1]


def test_a_line_says_when_what_and_what_stood_before(folder):
    lines = list(read_lines(folder))
    assert [each.number for each in lines] == [*range(1, 14)]
    assert [each.kind for each in lines] == ["file", *["sampled"] * 12]
    assert lines[0].before == START and lines[5].before == lines[4].digest
    assert lines[3].facts == {"number": 2, "user": "anna"}
    assert lines[3].time.endswith("Z") and lines[3].time <= lines[4].time
    found = verify(folder)
    assert found.whole and (found.lines, found.last, found.digest) == (13, 13, lines[-1].digest)
    assert verify(folder, lines[4].digest).whole
    assert "No line has the digest" in verify(folder, "0" * 64).faults[0]
    if os.name != "nt":  # it names users
        assert not stat.S_IMODE(newest(folder).stat().st_mode) & stat.S_IRWXO


def test_whatever_is_said_becomes_a_line_of_bounded_length(tmp_path):
    new = Log(tmp_path, MB)
    odd = {
        "number": float("nan"),
        "letters": "x" * 5000,
        "half": "\ud800\n",
        "list": [*range(500)],
        "object": Path("a"),
        "big": 2**80,
    }
    facts = new.record("odd", odd).facts
    assert facts["number"] == "nan" and facts["object"] == "a" and facts["big"] == 2**80
    assert facts["letters"].endswith("... (5000 letters)") and len(facts["letters"]) < 2100
    assert len(facts["list"]) == 201 and facts["list"][-1] == "... and 300 more"
    assert facts["half"] == "\\ud800\n"
    huge = new.record("odd", {str(each): "y" * 2000 for each in range(200)})
    assert huge.facts["too_long"] > LONGEST > len(huge.raw) and verify(tmp_path).whole


def test_there_is_no_log(tmp_path):
    with pytest.raises(FileNotFoundError, match="There is no evidence log in"):
        verify(tmp_path)
    with pytest.raises(FileNotFoundError, match="There is no evidence log in"):
        next(read_lines(tmp_path / "none"))


def test_the_oldest_files_go_when_there_is_no_room_and_the_log_says_so(tmp_path):
    new = Log(tmp_path, MB // 16)
    for number in range(450):
        new.record("sampled", {"number": number, "text": "x" * 100})
    there = files_of(tmp_path)
    assert 3 < len(there) <= log.PARTS
    assert sum(each.stat().st_size for each in there) < MB // 16
    first = next(read_lines(tmp_path))
    assert there[0] == file_from(tmp_path, first.number) and first.number > 50
    found = verify(tmp_path)
    assert found.whole and found.last > 450
    assert f"Lines 1 to {first.number - 1} were dropped to keep the log small" in found.notes[0]
    assert first.before in found.notes[0]
    assert new.totals["samplings"] == 450
    again = Log(tmp_path, MB // 16)
    again.record("sampled", {})
    assert again.totals["samplings"] == 451, "the figures of what was dropped are kept"
    there[0].unlink()
    assert "missing; only line" in verify(tmp_path).faults[0]
    there[2].unlink()
    assert "are missing." in "\n".join(verify(tmp_path).faults)


def test_lines_older_than_the_limit_go_and_the_log_stays_whole(tmp_path, monkeypatch):
    passed = datetime.timedelta()

    class Clock(datetime.datetime):
        @classmethod
        def now(cls, tz=None):
            return super().now(tz) + passed

    monkeypatch.setattr(lines.datetime, "datetime", Clock)
    new = Log(tmp_path, MB, days=30)
    for number in range(80):
        passed = datetime.timedelta(days=number)
        new.record("sampled", {"number": number})
        oldest = next(each for each in read_lines(tmp_path) if each.kind == "sampled")
        assert number - 30 <= oldest.facts["number"] <= max(0, number - 20)
        found = verify(tmp_path)
        assert found.whole, found.faults
    assert "were dropped for their age (max_days is 30)" in found.notes[0]
    assert new.totals["samplings"] == 80 and 3 < len(files_of(tmp_path)) <= log.PARTS + 1
    again = Log(tmp_path, MB, days=30)
    passed = datetime.timedelta(days=200)
    again.record("sampled", {})
    assert again.totals["samplings"] == 81 and verify(tmp_path).whole
    assert [each.facts for each in read_lines(tmp_path) if each.kind == "sampled"] == [{}]
    files_of(tmp_path)[-1].rename(tmp_path / "elsewhere")
    assert not verify(tmp_path).whole


@pytest.mark.parametrize("text", ["", "yesterday", "9999-99-99T00:00:00Z", "2026-01-01T00:00:00"])
def test_what_is_no_time_is_no_age(text):
    assert days_since(text) == 0.0


def test_two_writers_take_turns(tmp_path):
    one, two = Log(tmp_path, MB // 32), Log(tmp_path, MB // 32)
    for number in range(60):
        one.record("sampled", {"text": "x" * 100})
        if number % 3:
            two.record("refused", {"reason": "NoLock"})
    found = verify(tmp_path)
    assert found.whole and not [note for note in found.notes if "dropped" not in note]
    one.record("sampled", {})
    assert one.totals["refusals"] == 40 == two.totals["refusals"]
    assert one.totals["samplings"] == 61


def test_a_folder_that_can_not_be_written_is_told(tmp_path, monkeypatch):
    (tmp_path / "log").write_text("a file")
    with pytest.raises(EvidenceError, match="can't be written: "):
        Log(tmp_path / "log", MB).record("sampled", {})
    new = Log(tmp_path / "other", MB)
    new.record("sampled", {})

    def full(_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(EvidenceError, match="the disk is full; make room"):
            new.record("sampled", {})
    new.record("sampled", {})
    assert verify(tmp_path / "other").whole


def test_a_writer_that_waits_in_vain_says_for_whom(tmp_path, monkeypatch):
    from filelock import FileLock

    monkeypatch.setattr(log, "WAIT", 0.05)
    with FileLock(tmp_path / files.LOCK), pytest.raises(EvidenceError, match="another process"):
        Log(tmp_path, MB).record("sampled", {})


def test_lines_are_read_from_any_place(folder):
    raw = [each for each, *_ in lines_in(newest(folder))]
    assert all(map(parsed, raw)) and len(raw) == 13
    assert [each for each, *_ in lines_in(newest(folder), len(raw[0]) + 1)] == raw[1:]
