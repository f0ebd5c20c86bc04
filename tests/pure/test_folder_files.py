"""What a folder audit sees in files: odd ones all accounted for, long animations, links."""

import json
from pathlib import Path

import numpy as np
import odd_files
import pyarrow.parquet
import pytest
from modular_safety_lora.audit.folders import workers as folder
from modular_safety_lora.audit.folders.files import walk
from modular_safety_lora.audit.presets import PRESETS
from modular_safety_lora.audit.rules import Rules
from nudenet import NudeDetector
from picture_folders import FACES, audited
from PIL import Image
from skimage import data


@pytest.fixture(scope="module")
def odd(tmp_path_factory) -> tuple[Path, dict[str, str]]:
    place = tmp_path_factory.mktemp("odd")
    return place, odd_files.write(place)


def verdicts(report: dict) -> dict[str, str]:
    found = {
        Path(image["path"]).name: "face" if image["flagged"] else "clear"
        for image in report["images"]
    }
    return found | {Path(each["path"]).name: "unreadable" for each in report["unreadable"]}


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
    of_films = {"seconds", "flagged_at"}
    columns = rows[0].keys() - {"unreadable", "second_flagged"} - of_films
    assert columns == set().union(*images.values())
    assert {
        Path(row["path"]).name: row["unreadable"] for row in rows if row["unreadable"]
    } == reasons
    assert images["face.png"]["detections"] == [
        {key: value for key, value in found.items() if key not in ("frame", "time", "on", "by")}
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


def test_links_in_a_circle_end(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "again").symlink_to(tmp_path / "a")
    Image.new("RGB", (8, 8)).save(tmp_path / "a" / "x.png")
    assert [Path(path).name for path, _ in walk([tmp_path / "a"])] == ["x.png"]
