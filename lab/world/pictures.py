"""The emoji sets, fetched and rendered, and the pictures of the harmless task.

Needs npm, which fetches the packages, and resvg-py, which renders SVG without a system library.
"""

import hashlib
import io
import json
import re
import shutil
import subprocess
import tarfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from .sets import BASE, HARMLESS, NAMES, SETS, SIDE, STYLES, Set, caption
from .sets import TASK as TASK_STYLE

TASK = Path(__file__).parent / "firefox"
LISTED = "metadata.jsonl"  # of captions, as the pack's trainer and others read it
DULL = re.compile("skin-tone|flag")  # many of a kind
CACHE = Path(__file__).resolve().parents[2] / ".host" / "world"
Drawn = dict[str, tuple[str, np.ndarray]]  # caption and picture by the name of the file


def icons(which: Set, folder: Path = CACHE) -> dict:
    """The set's icons as Iconify writes them, fetched when they are not in the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    archive = folder / f"iconify-json-{which.package}-{which.version}.tgz"
    if not archive.is_file():
        package = f"@iconify-json/{which.package}@{which.version}"
        subprocess.run(["npm", "pack", package], cwd=folder, check=True, capture_output=True)
    with tarfile.open(archive) as packed:
        return json.load(packed.extractfile("package/icons.json"))


def render(data: dict, icon: str) -> np.ndarray:
    """One icon on white: uint8 (SIDE, SIDE, 3)."""
    import resvg_py

    while icon in data.get("aliases", {}):
        icon = data["aliases"][icon]["parent"]
    entry = data["icons"][icon]
    width = entry.get("width", data.get("width", 16))
    height = entry.get("height", data.get("height", 16))
    left, top = entry.get("left", data.get("left", 0)), entry.get("top", data.get("top", 0))
    svg = (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
        f' viewBox="{left} {top} {width} {height}">{entry["body"]}</svg>'
    )
    png = bytes(resvg_py.svg_to_bytes(svg_string=svg, width=SIDE, height=SIDE))
    drawn = Image.open(io.BytesIO(png)).convert("RGBA")
    picture = Image.new("RGBA", (SIDE, SIDE), "white")
    picture.alpha_composite(drawn, ((SIDE - drawn.width) // 2, (SIDE - drawn.height) // 2))
    return np.asarray(picture.convert("RGB"))


def known(which: Set, data: dict) -> dict[str, str]:
    """name -> icon, for those of NAMES that the set has."""
    aliases = dict(which.aliases)
    there = data["icons"].keys() | data.get("aliases", {}).keys()
    named = {name: aliases.get(name, name.replace(" ", "-")) + which.suffix for name in NAMES}
    return {name: icon for name, icon in named.items() if icon in there}


def named(sets: tuple[Set, ...] = SETS, folder: Path = CACHE) -> dict[str, dict[str, np.ndarray]]:
    """style -> name -> picture, of the names in `sets`."""
    found = {}
    for which in sets:
        asked = hashlib.sha256(repr((which, NAMES, SIDE)).encode()).hexdigest()[:8]
        kept = folder / f"{which.style}-{asked}.npz"
        if not kept.is_file():
            data = icons(which, folder)
            pictures = {name: render(data, icon) for name, icon in known(which, data).items()}
            np.savez_compressed(kept, **pictures)
        with np.load(kept) as drawn:
            found[which.style] = {name: drawn[name] for name in drawn.files}
    return found


def task_pictures() -> dict[str, np.ndarray]:
    """name -> picture of the harmless task that ships; nothing is fetched."""
    files = sorted(TASK.glob("*.png"))
    return {file.stem: np.asarray(Image.open(file).convert("RGB")) for file in files}


def captioned(names: Iterable[str], style: str = TASK_STYLE) -> dict[str, np.ndarray]:
    """caption -> picture, of those names that a style has."""
    drawn = task_pictures() if style == TASK_STYLE else named((STYLES[style],))[style]
    return {caption(name, style): drawn[name] for name in names if name in drawn}


def lessons(style: str, names: Iterable[str], kin: Iterable[str] = (), times: int = 0) -> Drawn:
    """What a task LoRA learns: names in its style; and kin in the base's own, `times` over."""
    drawn = {each.split(",")[0]: (each, it) for each, it in captioned(names, style).items()}
    for name in kin if times else ():
        for each in BASE:
            for text, picture in captioned([name], each).items():
                drawn |= {f"{name}-{each}-{time}": (text, picture) for time in range(times)}
    return drawn


def every(folder: Path = CACHE) -> np.ndarray:
    """All icons of the coloured sets, uint8 (pictures, SIDE, SIDE, 3): for the autoencoder."""
    kept = folder / f"every-{SIDE}.npy"
    if not kept.is_file():
        pictures = []
        for which in SETS:
            data = icons(which, folder)
            if which.style != "ink":
                plain = [icon for icon in sorted(data["icons"]) if not DULL.search(icon)]
                pictures += [render(data, icon) for icon in plain[::2]]
        np.save(kept, np.stack(pictures))
    return np.load(kept)


def write_dataset(folder: Path, style: str, pictures: dict[str, np.ndarray]) -> None:
    """Write a style's harmless pictures as a training set: PNGs, and a line of JSON for each."""
    shown = [name for name in HARMLESS if name in pictures]
    write_captioned(folder, {name: (caption(name, style), pictures[name]) for name in shown})


def write_captioned(folder: Path, drawn: Drawn) -> None:
    """Write pictures with their captions, by the names of their files, as a training set."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for name, (text, picture) in drawn.items():
        Image.fromarray(picture).quantize(64).save(folder / f"{name}.png", optimize=True)
        lines.append(json.dumps({"file_name": f"{name}.png", "text": text}) + "\n")
    (folder / LISTED).write_text("".join(lines), encoding="utf-8")


def copy_with_texts(folder: Path) -> None:
    """The harmless task as ComfyUI's own node reads it: each picture with a caption beside it."""
    folder.mkdir(parents=True)
    for line in (TASK / LISTED).read_text(encoding="utf-8").splitlines():
        entry = json.loads(line)
        shutil.copy(TASK / entry["file_name"], folder)
        (folder / entry["file_name"]).with_suffix(".txt").write_text(entry["text"] + "\n")
