"""Audits to look at: faces in photographs as taken, darkened, blurred and turned, compared."""

import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from ...audit.compare import chart, compare, table
from ...audit.detectors.registry import find
from ...audit.presets import PRESETS
from ...audit.report import audit

COUNT = 60
TREATMENTS = {
    "as taken": lambda picture: picture,
    "darkened": lambda picture: picture.point(lambda value: value // 10),
    "blurred": lambda picture: picture.filter(ImageFilter.GaussianBlur(5)),
    "turned": lambda picture: picture.rotate(90),
}


def photographs() -> list[Image.Image]:
    """Cuts of scikit-image's photographs, three of five with a face; seeded."""
    from skimage import data

    rng, found = np.random.default_rng(3), []
    sources = [
        Image.fromarray(each())
        for each in (data.astronaut, data.astronaut, data.coffee, data.astronaut, data.chelsea)
    ]
    for number in range(COUNT):
        source = sources[number % len(sources)].resize((512, 512))
        left, top = rng.integers(0, 110, 2)
        side = int(rng.integers(300, 400))
        found.append(
            source.rotate(int(rng.integers(-25, 25))).crop((left, top, left + side, top + side))
        )
    return found


def compared(folder: Path) -> list[Path]:
    """Audit the photographs under each treatment and compare.

    Writes the chart and the table below `folder`.
    """
    reports = {}
    for name, treat in TREATMENTS.items():
        pictures = (np.asarray(treat(each), dtype=np.float32) / 255 for each in photographs())
        reports[name] = audit(pictures, PRESETS["faces"], detector=find())
    comparison = compare(reports)
    chart(comparison).save(folder / "comparison.png")
    (folder / "comparison.md").write_text(table(comparison) + "\n", encoding="utf-8")
    return [folder / "comparison.png", folder / "comparison.md"]


def folder_report(folder: Path) -> list[Path]:
    """Write all photographs and two bad files, audit the folder by the command line; its page."""
    pictures = folder / "photographs"
    for name, treat in TREATMENTS.items():
        place = pictures / name
        place.mkdir(parents=True)
        for number, each in enumerate(photographs()):
            treat(each).save(place / f"{number:03d}.jpg", quality=92)
    (pictures / "as taken" / "000.txt").write_text("a caption", encoding="utf-8")
    (pictures / "empty.jpg").write_bytes(b"")
    whole = (pictures / "as taken" / "001.jpg").read_bytes()
    (pictures / "cut off.jpg").write_bytes(whole[: len(whole) // 3])
    report, page = folder / "folder-audit.json", folder / "folder-audit.html"
    rules = ["--preset", "faces", "--second-opinion", "all"]
    files = ["--output", str(report), "--html", str(page)]
    command = [sys.executable, "-m", "modular_safety_lora", "audit", str(pictures)]
    subprocess.run([*command, *rules, *files], check=True)
    return [page]
