"""A folder audit of names that no database takes as they are, and of what is no file."""

import json
import os
import threading
from pathlib import Path

import pyarrow.parquet
import pytest
from cli import run
from modular_safety_lora.audit.folders.files import walk
from modular_safety_lora.audit.folders.workers import audit_files
from modular_safety_lora.audit.pictures import Unreadable, open_picture
from modular_safety_lora.storage.names import read_back
from modular_safety_lora.storage.owned import owned
from picture_folders import FACES, audited
from PIL import Image
from skimage import data

pytestmark = pytest.mark.skipif(os.name == "nt", reason="names are Unicode there, without pipes")
FACE = Image.fromarray(data.astronaut()[40:250, 120:330]).resize((128, 128))
ODD = os.fsdecode(b"caf\xe9.png")
LONG = "n" * 251 + ".png"  # 255 bytes


@pytest.fixture
def place(tmp_path) -> Path:
    """Faces under odd names, one in an odd folder; a cut picture; pipes, linked to and not."""
    folder = tmp_path / "pictures"
    (folder / os.fsdecode(b"d\xff")).mkdir(parents=True)
    for name in (ODD, LONG, os.fsdecode(b"d\xff/plain.png"), r"back\slash.png", r"caf\xe9.png"):
        FACE.save(folder / name)
    cut = folder / os.fsdecode(b"cut\xe9.png")
    cut.write_bytes((folder / ODD).read_bytes()[:900])
    os.mkfifo(folder / "pipe")
    (folder / "link.png").symlink_to(folder / "pipe")
    return folder


@pytest.fixture
def nobody_waits(place):
    """Whoever waits for a pipe is let go in the end, so that a test of it ends too."""

    def write() -> None:
        with (place / "pipe").open("wb", buffering=0):
            pass

    timer = threading.Timer(20, write)
    timer.daemon = True
    timer.start()
    yield
    timer.cancel()


def test_any_name_is_audited_reported_in_utf_8_and_annotated(place, nobody_waits, tmp_path):
    report, rows, marked = tmp_path / "r.json", tmp_path / "r.parquet", tmp_path / "marked"
    asked = ["--preset", "faces", "--output", report, "--annotate", marked, "--workers", 1]
    audited(place, *asked, "--parquet", rows, "--html", tmp_path / "r.html")
    found = json.loads(report.read_bytes().decode("utf-8"))
    names = {each["path"].removeprefix(f"{place}/") for each in found["images"]}
    assert names == {"caf\\xe9.png", LONG, "d\\xff/plain.png", r"back\\slash.png", r"caf\\xe9.png"}
    assert all(each["flagged"] for each in found["images"])
    assert all(Path(read_back(each["path"])).is_file() for each in found["images"])
    reasons = {Path(each["path"]).name: each["reason"] for each in found["unreadable"]}
    assert reasons.keys() == {"cut\\xe9.png", "link.png"} and "a pipe" in reasons["link.png"]
    assert found["summary"]["other_files"] == 1  # the pipe, whose name claims no picture
    assert len(pyarrow.parquet.read_table(rows).to_pylist()) == 7
    assert "caf\\xe9.png" in (tmp_path / "r.html").read_text(encoding="utf-8")
    kept = {os.fsencode(path.name) for path in marked.rglob("*.png")}
    assert len(kept) == 5 and b"caf\xe9.png.png" in kept and max(map(len, kept)) == 255
    audited(place, *asked)  # goes on with every row
    assert json.loads(report.read_text(encoding="utf-8")) == found


def test_a_pipe_is_never_waited_for(place, nobody_waits):
    there = [each for each in walk([place]) if each[0].endswith(("pipe", "link.png"))]
    assert [path.rpartition("/")[2] for path, _ in there] == ["link.png", "pipe"]
    link, pipe = (row for _, _, row in audit_files(there, FACES))
    assert link["unreadable"] == "no file, but a pipe" and pipe["other"]
    with pytest.raises(Unreadable, match="a device"):
        Path(place, "zero.png").symlink_to("/dev/zero")
        open_picture(place / "zero.png")


def test_folders_may_lie_in_each_other_deeper_than_python_calls(tmp_path):
    made = [tmp_path / "top"]
    made[0].mkdir()
    for _ in range(1200):
        made.append(made[-1] / "d")
        made[-1].mkdir()
    (made[-1] / "x.png").touch()
    try:
        assert [path for path, _ in walk([tmp_path])] == [f"{made[-1]}/x.png"]
    finally:
        (made[-1] / "x.png").unlink()
        for each in reversed(made):
            each.rmdir()


def test_a_second_audit_to_one_report_is_told_so_at_its_start(tmp_path):
    """To this thread another thread's lock is another process's."""
    report, held, done = tmp_path / "r.json", threading.Event(), threading.Event()

    def first() -> None:
        with owned(report):
            held.set()
            done.wait(60)

    thread = threading.Thread(target=first)
    thread.start()
    held.wait(60)
    said = run("audit", tmp_path, "--preset", "faces", "--output", report)
    done.set()
    thread.join()
    assert said.returncode == 1 and "another run is writing to this name" in said.stderr
    assert list(tmp_path.iterdir()) == []
