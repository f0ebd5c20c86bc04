"""The folder audit: odd files all accounted for, killed and resumed to the same Parquet.

It runs on processes and on Ray.
"""

import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import odd_files
import psutil
import pyarrow.parquet
import pytest
from modular_safety_lora.audit.detectors.registry import find
from modular_safety_lora.audit.folders import workers as folder
from modular_safety_lora.audit.folders.store import Store, StoreError, batched
from modular_safety_lora.audit.folders.workers import DIED, audit_parallel, walk
from modular_safety_lora.audit.presets import CLASSES, PRESETS
from modular_safety_lora.audit.rules import Rules
from modular_safety_lora.commands import main
from nudenet import NudeDetector
from PIL import Image
from skimage import data

FACES = Rules(PRESETS["faces"])


@pytest.fixture(scope="module")
def odd(tmp_path_factory) -> tuple[Path, dict[str, str]]:
    place = tmp_path_factory.mktemp("odd")
    return place, odd_files.write(place)


def small_pictures(place: Path, count: int) -> None:
    """Pictures of 64 to 128 pixels, a third of them with a face."""
    place.mkdir(parents=True)
    face, cup = Image.fromarray(data.astronaut()[40:250, 120:330]), Image.fromarray(data.coffee())
    for number in range(count):
        source = face if number % 3 == 0 else cup
        side = 64 + number % 65
        source.rotate(number % 20 - 10).resize((side, side)).save(
            place / f"{number:05d}.jpg", quality=90
        )


def verdicts(report: dict) -> dict[str, str]:
    found = {
        Path(image["path"]).name: "face" if image["flagged"] else "clear"
        for image in report["images"]
    }
    return found | {Path(each["path"]).name: "unreadable" for each in report["unreadable"]}


def audited(*arguments, code: int = 0) -> None:
    assert main(["audit", *(str(each) for each in arguments)]) == code


def test_every_odd_file_is_accounted_for(odd, tmp_path):
    place, expected = odd
    output = tmp_path / "report.json"
    audited(
        place,
        "--preset",
        "faces",
        "--output",
        output,
        "--parquet",
        tmp_path / "r.parquet",
        "--workers",
        2,
    )
    report = json.loads(output.read_text(encoding="utf-8"))
    pictures = {name: verdict for name, verdict in expected.items() if verdict != "other"}
    assert verdicts(report) == pictures
    summary, reasons = (
        report["summary"],
        {Path(each["path"]).name: each["reason"] for each in report["unreadable"]},
    )
    assert summary["other_files"] == sum(verdict == "other" for verdict in expected.values())
    assert summary["unreadable"] == len(reasons) and all(reasons.values())
    assert "60000 x 60000 pixels are more than the limit of 100 megapixels" in reasons["huge.png"]
    assert (
        "empty" in reasons["empty.png"]
        and "truncated" in reasons["cut off.jpg"]
        and "not numbers" in reasons["nan.tif"]
    )
    images = {Path(image["path"]).name: image for image in report["images"]}
    assert [name for name, image in sorted(images.items()) if image["mislabelled"]] == [
        "jpeg called.png",
        "no suffix",
        "png called.txt",
    ]
    assert summary["mislabelled"] == 3 and summary["animated"] == 3
    assert [
        found["frame"] for found in images["animated.gif"]["detections"] if found["counted"]
    ] == [2]
    assert images["animated.gif"]["frames"] == images["animated.gif"]["frames_audited"] == 3
    rows = pyarrow.parquet.read_table(tmp_path / "r.parquet").to_pylist()
    assert [Path(row["path"]).name for row in rows] == sorted(pictures)
    assert {
        Path(row["path"]).name: row["unreadable"] for row in rows if row["unreadable"]
    } == reasons
    assert images["face.png"]["detections"] == [
        {key: value for key, value in found.items() if key != "frame"}
        for row in rows
        if row["path"].endswith("/face.png")
        for found in row["detections"]
    ]


def test_what_a_file_shows_is_what_nudenet_sees_in_its_pixels(odd):
    place, _ = odd
    oracle = NudeDetector()
    for name in ("face.png", "face.jpg", "cmyk.jpg", "palette.gif", "transparent.png", "cup.png"):
        row = folder.audit_files([(str(place / name), "")], FACES)[0][2]
        expected = oracle.detect(np.asarray(Image.open(place / name).convert("RGB")))
        assert [
            {key: each[key] for key in ("class", "score", "box")} for each in row["detections"]
        ] == expected
    face = folder.audit_files([(str(place / "face.png"), "")], FACES)[0][2]["detections"][0]
    for name in ("16 bit.png", "16 bit.tif", "float.tif", "turned.jpg"):
        found = folder.audit_files([(str(place / name), "")], FACES)[0][2]["detections"][0]
        assert np.abs(np.subtract(found["box"], face["box"])).max() < 15, (
            f"{name} was cut off, not scaled, or not turned"
        )


def test_frames_are_spread_over_a_long_animation(tmp_path):
    clear, face = Image.new("RGB", (200, 200)), Image.fromarray(data.astronaut()).resize((200, 200))
    frames = [clear.copy() for _ in range(50)]
    for number, frame in enumerate(frames):
        frame.putpixel((number, 0), (255, 255, 255))  # or GIF joins equal frames
    frames[-1] = face
    frames[0].save(tmp_path / "long.gif", save_all=True, append_images=frames[1:])
    few = folder.audit_files(
        [(str(tmp_path / "long.gif"), "")],
        Rules(PRESETS["faces"], frames=4),
    )[0][2]
    assert few["frames"] == 50 and few["frames_audited"] == 4 and few["flagged"]
    assert {found["frame"] for found in few["detections"]} == {49}


@pytest.mark.slow
def test_a_run_killed_five_times_gives_the_same_parquet(tmp_path):
    place = tmp_path / "pictures"
    small_pictures(place, 700)
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
    command = [
        sys.executable,
        "-m",
        "modular_safety_lora",
        "audit",
        str(place),
        "--preset",
        "faces",
        "--workers",
        "2",
    ]
    command += ["--output", str(killed / "r.json"), "--parquet", str(killed / "r.parquet")]
    counts = []
    for turn in range(5):
        running = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wanted = 100 * (turn + 1)
        while rows_in(killed / "r.sqlite") < wanted and running.poll() is None:
            time.sleep(0.02)
        running.send_signal(signal.SIGKILL)
        running.wait()
        counts.append(rows_in(killed / "r.sqlite"))
        assert not (killed / "r.json").exists()
    assert counts[0] >= 100 and counts == sorted(counts) and counts[-1] < 700
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (killed / "r.parquet").read_bytes() == (whole / "r.parquet").read_bytes()
    ours, theirs = (
        json.loads((each / "r.json").read_text(encoding="utf-8")) for each in (killed, whole)
    )
    assert ours == theirs and 150 < ours["summary"]["flagged"] < 700
    time.sleep(0.5)
    assert not orphans(), "no worker outlives its parent"


def rows_in(path: Path) -> int:
    if not path.exists():
        return 0
    try:
        rows = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
        return rows.execute("select count(*) from pictures").fetchone()[0]
    except sqlite3.OperationalError:
        return 0


def orphans() -> list[psutil.Process]:
    """Workers whose parent is gone."""
    found = psutil.process_iter(["cmdline", "ppid"])
    return [
        each
        for each in found
        if "spawn_main" in " ".join(each.info["cmdline"] or []) and each.info["ppid"] == 1
    ]


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


def test_the_rows_of_another_audit_are_not_gone_on_with(tmp_path, capsys):
    small_pictures(tmp_path / "pictures", 2)
    audited(
        tmp_path / "pictures", "--preset", "faces", "--output", tmp_path / "r.json", "--workers", 1
    )
    audited(tmp_path / "pictures", "--preset", "strict", "--output", tmp_path / "r.json", code=1)
    assert (
        "holds 2 rows of an audit made with another preset name (faces; now strict)"
        in capsys.readouterr().err
    )
    (tmp_path / "text.sqlite").write_text("no database, but long enough to be taken for one" * 20)
    with pytest.raises(StoreError, match="this is not the file of an audit"):
        Store(tmp_path / "text.sqlite", {})


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


@pytest.mark.skipif(
    sys.version_info >= (3, 14),
    reason="NO RAY for this Python: the folder audit was not run on Ray Data",
)
@pytest.mark.slow
def test_ray_gives_the_same_parquet(tmp_path):
    place = tmp_path / "pictures"
    small_pictures(place, 70)
    (place / "bad.jpg").write_bytes(b"bad")
    for name, more in (("processes", []), ("ray", ["--ray", "local"])):
        output = tmp_path / name
        files = ["--output", output / "r.json", "--parquet", output / "r.parquet"]
        audited(place, "--preset", "faces", *files, "--workers", 2, *more)
    assert (tmp_path / "ray" / "r.parquet").read_bytes() == (
        tmp_path / "processes" / "r.parquet"
    ).read_bytes()


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


def test_links_in_a_circle_end(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "again").symlink_to(tmp_path / "a")
    Image.new("RGB", (8, 8)).save(tmp_path / "a" / "x.png")
    assert [Path(path).name for path, _ in walk([tmp_path / "a"])] == ["x.png"]


@pytest.mark.slow
def test_presets_and_detectors_of_ones_own_reach_every_process(tmp_path):
    place = tmp_path / "pictures"
    small_pictures(place, 40)
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
