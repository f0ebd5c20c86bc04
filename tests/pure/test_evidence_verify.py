"""Whatever is done to the evidence log by others is told, then and later."""

import json
import re
import shutil
from pathlib import Path

import pytest
from modular_safety_lora.evidence import files
from modular_safety_lora.evidence.lines import LONGEST
from modular_safety_lora.evidence.log import Log
from modular_safety_lora.evidence.verify import verify
from test_evidence import MB, newest, written


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return written(tmp_path_factory.mktemp("log") / "log")


@pytest.fixture
def folder(made, tmp_path):
    return shutil.copytree(made, tmp_path / "log")


def edited(folder: Path, change) -> None:
    """The newest file with other lines."""
    file = newest(folder)
    lines = file.read_bytes().splitlines(keepends=True)
    change(lines)
    file.write_bytes(b"".join(lines))


def change_a_byte(lines):
    lines[5] = lines[5].replace(b"anna", b"anne")


def change_the_last(lines):
    lines[-1] = lines[-1].replace(b"anna", b"anne")


def break_a_line(lines):
    lines[5] = b"{" + lines[5]


def remove_a_line(lines):
    del lines[5]


def remove_the_first(lines):
    del lines[0]


def swap_two(lines):
    lines[5], lines[6] = lines[6], lines[5]


def cut_off(lines):
    del lines[9:]


def cut_in_a_line(lines):
    lines[9:] = [lines[9][:20]]


def break_the_last(lines):
    lines[-1] = lines[-1][:20] + b"\n"


def put_in(lines):
    lines.insert(5, lines[4])


def put_in_what_is_none(lines):
    lines.insert(5, b"hello\n")


def put_in_a_blank(lines):
    lines.insert(5, b"\n")


def forge(lines):
    """Another line in the place of one, with the right number and digest of what stands before."""
    line = json.loads(lines[5])
    line["facts"] = {}
    lines[5] = json.dumps(line, separators=(",", ":")).encode() + b"\n"


def endless(lines):
    lines[5] = b"x" * 10 * LONGEST + b"\n"


DONE = {
    change_a_byte: "line 6 is not as it was written: line 7 has another digest of it",
    change_the_last: "line 13 is not as it was written .`head`",
    break_a_line: "1 line after line 5 can't be read.*\n.*line 6 is missing",
    remove_a_line: "line 6 is missing",
    remove_the_first: "Line 1 is missing, and nothing says why",
    swap_two: "line 6 is missing.*\n.*line 6 stands after line 7",
    cut_off: "Lines 10 to 13 are missing at the end",
    cut_in_a_line: "Lines 10 to 13 are missing at the end",
    break_the_last: "Line 13 is missing at the end",
    put_in: "line 5 stands after line 5",
    put_in_what_is_none: "1 line after line 5 can't be read",
    put_in_a_blank: "1 line after line 5 can't be read",
    forge: "line 6 is not as it was written: line 7",
    endless: "1 line after line 5 can't be read",
}


@pytest.mark.parametrize("done", DONE, ids=lambda each: each.__name__)
def test_what_was_done_to_the_log_is_told_then_and_later(folder, done):
    """Later too: a writer that goes on does not make it right, nor does it count it as torn."""
    edited(folder, done)
    found = verify(folder)
    said = "\n".join(found.faults)
    assert not found.whole and re.search(DONE[done], said), said
    Log(folder, 64 * MB).record("sampled", {})
    Log(folder, 64 * MB).record("sampled", {})
    later = verify(folder)
    assert not later.whole and later.faults, later.notes


def test_what_is_gone_with_its_head_is_told(folder):
    head = (folder / files.HEAD).read_bytes()
    (folder / files.HEAD).unlink()
    assert "The file `head`" in verify(folder).faults[0]
    (folder / files.HEAD).write_bytes(b"hello")
    assert "The file `head`" in verify(folder).faults[0]
    (folder / files.HEAD).write_bytes(head)
    newest(folder).unlink()
    assert verify(folder).faults == ["Lines 1 to 13 are missing at the end."]
    Log(folder, 64 * MB).record("sampled", {})
    said = verify(folder).faults
    assert "Lines 1 to 13 are missing, and nothing says why." in said
    assert any("lines 1 to 13 were written and are gone" in each for each in said)
