"""Folders of small pictures, and their audit by the command line."""

import sqlite3
from pathlib import Path

from modular_safety_lora.audit.presets import PRESETS
from modular_safety_lora.audit.rules import Rules
from modular_safety_lora.commands import main
from PIL import Image
from skimage import data

FACES = Rules(PRESETS["faces"])


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


def audited(*arguments, code: int = 0) -> None:
    """Run the folder audit by its command line; it must end with `code`."""
    assert main(["audit", *(str(each) for each in arguments)]) == code


def rows_in(path: Path) -> int:
    """How many pictures an audit's file holds; none where there is no file yet."""
    if not path.exists():
        return 0
    try:
        rows = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
        return rows.execute("select count(*) from pictures").fetchone()[0]
    except sqlite3.OperationalError:
        return 0
