"""A folder audit's processes, and Ray's: killed, resumed, and one result in every way."""

import json
import os
import re
import sys
import time
from pathlib import Path

import cli
import psutil
import pytest
from modular_safety_lora.audit.detectors.registry import find
from modular_safety_lora.audit.folders.files import walk
from modular_safety_lora.audit.folders.workers import DIED, audit_parallel
from modular_safety_lora.audit.presets import CLASSES
from picture_folders import FACES, audited, rows_in, small_pictures
from PIL import Image
from skimage import data

BEFORE_A_KILL = 18  # how many more pictures are looked at each time


@pytest.mark.slow
@pytest.mark.parametrize("times", [2, pytest.param(5, marks=pytest.mark.long)])
def test_a_run_that_is_killed_gives_the_same_parquet(tmp_path, times):
    place, count = tmp_path / "pictures", (times + 2) * BEFORE_A_KILL
    small_pictures(place, count)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    audited(
        place,
        "--preset",
        "faces",
        "--output",
        whole / "r.json",
        "--parquet",
        whole / "r.parquet",
        "--workers",
        2,
    )
    command = ["audit", place, "--preset", "faces", "--workers", "2"]
    command += ["--output", str(killed / "r.json"), "--parquet", str(killed / "r.parquet")]
    counts = []
    for turn in range(times):
        running = cli.start(*command)
        wanted = BEFORE_A_KILL * (turn + 1)
        while rows_in(killed / "r.sqlite") < wanted and running.returncode is None:
            time.sleep(0.02)
        running.kill()
        counts.append(rows_in(killed / "r.sqlite"))
        assert not (killed / "r.json").exists()
    assert counts[0] >= BEFORE_A_KILL and counts == sorted(counts) and counts[-1] < count
    done = cli.start(*command).done()
    assert done.returncode == 0, done.stderr
    assert (killed / "r.parquet").read_bytes() == (whole / "r.parquet").read_bytes()
    ours, theirs = (
        json.loads((each / "r.json").read_text(encoding="utf-8")) for each in (killed, whole)
    )
    assert ours == theirs and count / 5 < ours["summary"]["flagged"] < count
    time.sleep(0.5)
    assert not orphans(), "no worker outlives its parent"


def orphans() -> list[psutil.Process]:
    """Workers whose parent is gone."""
    found = psutil.process_iter(["cmdline", "ppid"])
    return [
        each
        for each in found
        if "spawn_main" in " ".join(each.info["cmdline"] or []) and each.info["ppid"] == 1
    ]


@pytest.mark.slow
def test_a_file_that_kills_its_process_is_listed_and_the_rest_is_done(tmp_path, monkeypatch):
    """A fault in a decoder, or the system's memory killer, ends a process from outside.

    Here a plugin of Pillow does.
    """
    small_pictures(tmp_path / "pictures", 40)
    (tmp_path / "pictures" / "00017.jpg").write_bytes(b"BOOM" + bytes(50))
    plugin = tmp_path / "plugins"
    plugin.mkdir()
    (plugin / "sitecustomize.py").write_text(
        "import os\n"
        "from PIL import Image, ImageFile\n"
        "class Boom(ImageFile.ImageFile):\n"
        "    format = 'PPM'\n"
        "    def _open(self):\n"
        "        os._exit(139)\n"
        "Image.init()\n"
        "Image.OPEN['PPM'] = (Boom, lambda prefix: prefix.startswith(b'BOOM'))\n"
    )
    monkeypatch.setenv(
        "PYTHONPATH", os.pathsep.join([str(plugin), os.environ.get("PYTHONPATH", "")])
    )
    rows = [row for rows in audit_parallel(walk([tmp_path / "pictures"]), FACES, 2) for row in rows]
    assert sorted(Path(path).name for path, _, _ in rows) == [
        f"{number:05d}.jpg" for number in range(40)
    ]
    assert {
        Path(path).name: data["unreadable"] for path, _, data in rows if "unreadable" in data
    } == {"00017.jpg": DIED}


@pytest.mark.skipif(os.name == "nt", reason="there is no limit on the size of files")
def test_a_disk_that_takes_no_picture_is_told_with_the_picture_that_it_did_not_take(tmp_path):
    """A limit on the size of files, which a writer meets as it meets a full disk."""
    Image.fromarray(data.astronaut()).save(tmp_path / "face.png")
    command = ["audit", tmp_path / "face.png", "--preset", "all", "--workers", 1]
    command += ["--output", tmp_path / "r.json", "--annotate", tmp_path / "marked"]
    done = cli.start(*command, file_size=100_000).done()
    marked = list((tmp_path / "marked").rglob("*.*"))
    assert done.returncode == 1 and not marked and not (tmp_path / "r.json").exists()
    assert re.search(r"audit: .*marked.*face\.png\.png: File too large\.$", done.stderr.strip())


def test_processes_that_cannot_start_end_the_run_and_no_file_is_blamed(tmp_path, monkeypatch):
    (tmp_path / "sitecustomize.py").write_text(
        "import os, sys\nif '--multiprocessing-fork' in sys.orig_argv: os._exit(1)\n"
    )
    monkeypatch.setenv(
        "PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    )
    small_pictures(tmp_path / "pictures", 2)
    with pytest.raises(RuntimeError, match="died 3 times before it was given anything"):
        list(audit_parallel(walk([tmp_path / "pictures"]), FACES, 2))


@pytest.mark.skipif(
    sys.version_info >= (3, 14),
    reason="NO RAY for this Python: the folder audit was not run on Ray Data",
)
@pytest.mark.long  # Ray starts eight processes
def test_ray_gives_the_same_parquet(tmp_path):
    place = tmp_path / "pictures"
    small_pictures(place, 40)
    (place / "bad.jpg").write_bytes(b"bad")
    for name, more in (("processes", []), ("ray", ["--ray", "local"])):
        output = tmp_path / name
        files = ["--output", output / "r.json", "--parquet", output / "r.parquet"]
        audited(place, "--preset", "faces", *files, "--workers", 2, *more)
    assert (tmp_path / "ray" / "r.parquet").read_bytes() == (
        tmp_path / "processes" / "r.parquet"
    ).read_bytes()


@pytest.mark.slow
def test_presets_and_detectors_of_ones_own_reach_every_process(tmp_path):
    place = tmp_path / "pictures"
    small_pictures(place, 24)
    classes = [name.lower() for name in CLASSES]
    entry = {"kind": "yolo", "file": str(find().network.file), "classes": classes}
    (tmp_path / "detectors.json").write_text(json.dumps({"mine": entry}), encoding="utf-8")
    rule = {
        "our faces": {
            "detector": "mine",
            "thresholds": {"face_female": 0.5, "face_male": 0.5},
            "source": "ours",
        }
    }
    (tmp_path / "rules.json").write_text(json.dumps(rule), encoding="utf-8")
    own = [
        "--detectors",
        tmp_path / "detectors.json",
        "--preset-file",
        tmp_path / "rules.json",
        "--preset",
        "our faces",
    ]
    audited(
        place, *own, "--second-opinion", "faces", "--output", tmp_path / "mine.json", "--workers", 2
    )
    audited(place, "--preset", "faces", "--output", tmp_path / "shipped.json", "--workers", 2)
    mine, shipped = (
        json.loads((tmp_path / f"{name}.json").read_text(encoding="utf-8"))
        for name in ("mine", "shipped")
    )
    assert [image["flagged"] for image in mine["images"]] == [
        image["flagged"] for image in shipped["images"]
    ]
    assert (
        mine["summary"]["flagged"] > 5
        and mine["summary"]["source"] == "ours"
        and mine["summary"]["detector"] == "mine"
    )
    assert mine["summary"]["second_opinion"]["agreement"] == 1.0
