"""A folder audit killed again and again against one left alone: the same Parquet, to the byte.

    .venv/bin/python -m modular_safety_lora.lab.benchmarks audit_folder \\
        [--pictures 10000] [--kills 5]

Writes seeded pictures of 64 to 128 pixels, a third of them with a face, and among them the odd ones
of real datasets (cut off, empty, 16 bit, CMYK, animated, mislabelled, ...). Audits them whole, then
again with SIGKILL at even distances, and compares.
"""

import json
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image
from skimage import data

from . import harness

FLAGS = {"pictures": 10_000, "kills": 5}


def main(options) -> int:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write(folder / "pictures", options.pictures)
        whole, killed = folder / "whole", folder / "killed"
        took = harness.seconds(lambda: finished(folder / "pictures", whole))
        print(f"uninterrupted: {took:.0f} s", flush=True)
        for turn in range(options.kills):
            wanted = options.pictures * (turn + 1) // (options.kills + 1)
            running = audited(folder / "pictures", killed)
            while rows(killed / "r.sqlite") < wanted:
                time.sleep(0.05)
            running.send_signal(signal.SIGKILL)
            running.wait()
            print(f"killed with {rows(killed / 'r.sqlite')} rows", flush=True)
        finished(folder / "pictures", killed)
        one, other = ((place / "r.parquet").read_bytes() for place in (whole, killed))
        summary = json.loads((killed / "r.json").read_text(encoding="utf-8"))["summary"]
        kinds = ("images", "flagged", "unreadable", "other_files", "mislabelled", "animated")
        counts = {name: summary[name] for name in kinds}
        print(f"the same Parquet: {one == other}. {counts}")
    return 0 if one == other else 1


def write(folder: Path, count: int) -> None:
    folder.mkdir()
    face, cup = Image.fromarray(data.astronaut()[40:250, 120:330]), Image.fromarray(data.coffee())
    for number in range(count):
        image = (
            (face if number % 3 == 0 else cup)
            .rotate(number % 20 - 10)
            .resize((64 + number % 65,) * 2)
        )
        path = folder / f"{number:05d}.jpg"
        odd = number % 100
        if odd == 7:
            path.write_bytes(b"")
        elif odd == 17:
            image.save(path)
            path.write_bytes(path.read_bytes()[:400])
        elif odd == 27:
            image.convert("CMYK").save(path)
        elif odd == 37:
            image.save(path, format="PNG")
        elif odd == 47:
            image.save(
                path.with_suffix(".gif"),
                save_all=True,
                append_images=[image.rotate(5), image.rotate(9)],
            )
        elif odd == 57:
            image.convert("I;16").save(path.with_suffix(".png"))
        elif odd == 67:
            path.with_suffix(".txt").write_text("a caption", encoding="utf-8")
        else:
            image.save(path)


def audited(pictures: Path, output: Path) -> subprocess.Popen:
    """A folder audit at work."""
    files = ["--output", str(output / "r.json"), "--parquet", str(output / "r.parquet")]
    command = ["audit", str(pictures), "--preset", "faces", *files]
    return subprocess.Popen(
        [sys.executable, "-m", "modular_safety_lora", *command],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def finished(pictures: Path, output: Path) -> None:
    code = audited(pictures, output).wait()
    if code:
        raise SystemExit(f"The audit of {pictures} ended with exit code {code}.")


def rows(path: Path) -> int:
    try:
        return (
            sqlite3.connect(f"file:{path}?mode=ro", uri=True)
            .execute("select count(*) from pictures")
            .fetchone()[0]
        )
    except sqlite3.OperationalError:
        return 0
