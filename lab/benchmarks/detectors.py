"""The detectors side by side, on pictures that come with ComfyUI and with the tests' packages.

    .venv/bin/python -m modular_safety_lora.lab.benchmarks detectors

It writes the table of `docs/detectors.md`: each detector that is installed, under its preset, on
the templates' pictures, scikit-image's and matplotlib's. What is flagged there is to be looked at:
these packages hold no nude pictures, to all appearance. `python install.py --with opennsfw` first.
"""

import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from ...audit.detectors import registry
from ...audit.detectors.runtime import DetectorMissing
from ...audit.films import open_film
from ...audit.opinion import Opinion
from ...audit.pictures import SUFFIXES, Unreadable, open_picture
from ...audit.presets import PRESETS
from ...audit.stats import kappa
from ...drawing.markdown import share, table
from ...storage.whole import write_text

PACKAGES = (
    *(f"comfyui_workflow_templates_media_{each}" for each in ("image", "other", "api", "video")),
    *("comfyui_workflow_templates_media_assets_01", "comfyui_workflow_templates_media_assets_02"),
    *("skimage", "matplotlib"),
)
PAGE = Path(__file__).parents[2] / "docs" / "detectors.md"
MARK = "<!-- detectors: python -m modular_safety_lora.lab.benchmarks detectors -->"
# by preset: the detector's name, what it sees, its licence
ROWS = {
    "strict": (
        "NudeNet",
        "nudity in photographs, with boxes",
        "MIT (wheel), AGPL-3.0 (repository)",
    ),
    "drawings": ("nsfwjs", "drawings and photographs, as a whole", "MIT"),
    "opennsfw": ("opennsfw", "photographs, as a whole", "BSD-2 (network), Apache-2.0 (package)"),
}
HEADS = (
    "detector (preset)",
    "sees",
    "licence",
    "MB",
    "ms a picture",
    "flagged",
    "agrees with NudeNet",
)


def pictures() -> Iterator[np.ndarray]:
    """The first frame of each picture that the packages bring, RGB."""
    for package in PACKAGES:
        spec = find_spec(package)
        folder = Path(spec.origin).parent if spec and spec.origin else None
        for path in sorted(folder.rglob("*")) if folder else ():
            if path.suffix.lower() not in SUFFIXES or open_film(path):
                continue
            try:
                opened = open_picture(path, frames=1)
                if opened:
                    yield from (picture for _, picture in opened[1])
            except Unreadable:
                continue


FLAGS: dict = {}


def main(options) -> None:
    shown = list(pictures())
    print(f"{len(shown)} pictures")
    verdicts: dict[str, list[bool]] = {}
    rows = []
    for name, (detector, sees, licence) in ROWS.items():
        try:
            found = registry.find(detector)
        except DetectorMissing as error:
            print(error)
            continue
        began = time.perf_counter()
        results = list(Opinion(PRESETS[name], found).of(shown))
        took = (time.perf_counter() - began) / len(shown)
        flagged = verdicts[name] = [each["flagged"] for each in results]
        pairs = list(zip(verdicts["strict"], flagged, strict=True))
        counts = [pairs.count(each) for each in ((1, 1), (1, 0), (0, 1), (0, 0))]
        agreed = kappa(*counts)
        same = share((counts[0] + counts[3]) / len(shown))
        rows.append(
            [
                f"{detector} (`{name}`)",
                sees,
                licence,
                f"{found.network.file.stat().st_size / 1e6:.1f}",
                f"{1000 * took:.0f}",
                str(sum(flagged)),
                same + ("" if agreed is None else f", kappa {agreed:.2f}") if rows else "",
            ]
        )
        print(*rows[-1], sep=" | ")
        print("flagged:", [place for place, each in enumerate(flagged) if each])
    text = PAGE.read_text(encoding="utf-8")
    before, _, after = text.partition(MARK)
    told = f"{len(shown)} pictures of {len(PACKAGES)} packages, none of them nude:"
    made = "\n".join([MARK, told, "", *table(HEADS, rows), "<!-- end -->"])
    write_text(PAGE, before + made + after.partition("<!-- end -->")[2])
