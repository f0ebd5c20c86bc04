"""The evidence log after a kill at any moment: whole, and what was unfinished is told apart."""

import os
import random
import shutil
import subprocess
import sys
import time

import pytest
from modular_safety_lora.evidence.files import files_of, write_head
from modular_safety_lora.evidence.lines import parsed
from modular_safety_lora.evidence.log import Log
from modular_safety_lora.evidence.verify import verify

STEPS = [5, pytest.param(1, marks=pytest.mark.long)]  # of the moments, one in so many
MOST = 2**15  # bytes: a file of it takes a dozen lines
WRITER = """
import sys
from pathlib import Path
from modular_safety_lora.evidence.log import Log
new = Log(Path(sys.argv[1]), int(sys.argv[2]))
print("ready", flush=True)
while True:
    new.record("sampled", {"text": "x" * 200})
"""


def killed_while_writing(folder, seconds: float, writers: int = 1) -> None:
    """Real processes that write as fast as they can, and are killed."""
    command = [sys.executable, "-c", WRITER, str(folder), str(MOST)]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(writers)]
    for each in started:
        assert each.stdout.readline() == b"ready\n"
    time.sleep(seconds)
    for each in started:
        each.kill()
        each.wait()
        each.stdout.close()


@pytest.mark.parametrize(
    ("kills", "writers"), [(10, 1), (3, 2), pytest.param(30, 3, marks=pytest.mark.long)]
)
def test_the_log_is_whole_after_every_kill(tmp_path, kills, writers):
    chance, last = random.Random(1), 0
    for _ in range(kills):
        killed_while_writing(tmp_path, chance.uniform(0.05, 0.2), writers)
        found = verify(tmp_path)
        assert found.whole, found.faults
        assert found.last > last
        last = found.last
    Log(tmp_path, MOST).record("sampled", {})
    assert verify(tmp_path).whole


@pytest.mark.parametrize("step", STEPS)
def test_a_line_that_was_cut_anywhere_is_unfinished_and_the_next_one_closes_it(tmp_path, step):
    """As it is after a kill in the middle of a write: the head is that of the line before."""
    first = tmp_path / "first"
    new = Log(first, 2**20)
    for _ in range(3):
        line = new.record("sampled", {"text": "é"})
    file = files_of(first)[0]
    whole = file.read_bytes()
    start = len(whole) - len(line.raw) - 1
    for cut in (*range(start + 1, len(whole) - 1, 4 * step), len(whole) - 1, len(whole)):
        folder = shutil.copytree(first, tmp_path / str(cut))
        (folder / file.name).write_bytes(whole[:cut])
        write_head(folder, line.number - 1, line.before)
        found = verify(folder)
        complete = cut >= len(whole) - 1  # it lacks its end alone, or nothing
        assert found.whole and found.last == line.number - (not complete)
        assert complete or "1 unfinished line at the end" in found.notes[0]
        Log(folder, 2**20).record("sampled", {})
        found = verify(folder)
        assert found.whole, (cut, found.faults)
        assert complete or "a process ended while it wrote; 1 unfinished line" in found.notes[0]
        shutil.rmtree(folder)


class Killed(BaseException):
    """In the place of SIGKILL: nothing of the log catches it."""


@pytest.mark.parametrize("step", STEPS)
def test_a_kill_before_or_in_any_call_of_the_system_leaves_a_log_that_goes_on(
    tmp_path, monkeypatch, step
):
    """Through new files and dropped ones: the n-th call is the last, half of a line written."""
    plain = {name: getattr(os, name) for name in ("open", "write", "fsync", "unlink")}
    state = {"left": 0}

    def counted(name):
        def call(*given, **named):
            state["left"] -= 1
            if state["left"] == 0:
                if name == "write" and b"{" in given[1]:  # the head's few bytes go as one
                    plain["write"](given[0], given[1][: len(given[1]) // 2])
                raise Killed
            return plain[name](*given, **named)

        return call

    def some(folder, count):
        new = Log(folder, 2**12)
        for _ in range(count):
            new.record("sampled", {"text": "x" * 150})

    kept = tmp_path / "kept"
    some(kept, 14)  # the next lines begin a file, and drop one
    reached = 0
    for kill_at in range(1, 400, step):
        folder = shutil.copytree(kept, tmp_path / str(kill_at))
        state["left"] = kill_at
        try:
            with monkeypatch.context() as patch:
                for name in plain:
                    patch.setattr(os, name, counted(name))
                some(folder, 4)
        except Killed:
            reached += 1
        else:
            break
        found = verify(folder)
        assert found.whole, (kill_at, found.faults)
        some(folder, 3)
        found = verify(folder)
        assert found.whole, (kill_at, found.faults)
        shutil.rmtree(folder)
    assert reached * step > 30
    assert files_of(kept)[0].name not in [each.name for each in files_of(folder)], "one was dropped"


def test_two_unfinished_lines_in_a_row_are_closed_together(tmp_path):
    new = Log(tmp_path, 2**20)
    new.record("sampled", {})
    file = files_of(tmp_path)[0]
    with file.open("ab") as opened:
        opened.write(b'{"line":3,"bef\n{"line":3,')
    assert verify(tmp_path).whole
    new.record("sampled", {})
    kinds = [line.kind if line else None for line in map(parsed, file.read_bytes().splitlines())]
    assert kinds == ["file", "sampled", None, None, "closed", "sampled"]
    found = verify(tmp_path)
    assert found.whole and "2 unfinished lines" in found.notes[0]
    file.write_bytes(file.read_bytes().replace(b'"line":3,"bef', b'"line":3,"beg', 1))
    assert "2 lines after line 2 can't be read" in verify(tmp_path).faults[0]
