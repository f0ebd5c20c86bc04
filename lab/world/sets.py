"""The pictures of this world: which emoji sets, which names, and what their captions say.

Only sets whose licence lets their pictures be passed on are here (NOTICE.md). A set's name on the
npm registry is `@iconify-json/<package>`; each is a row of `sets.json`. The base learns the sets in
BASE; the others are tasks.
"""

import json
from dataclasses import dataclass
from pathlib import Path

from ...emoji.names import (
    BASE,
    CONCEPT,
    HARMLESS,
    INK,
    NAMES,
    SIDE,
    TASK,
    TOOLS,
    WEAPONS,
    caption,
)

__all__ = ["BASE", "CONCEPT", "HARMLESS", "INK", "NAMES", "SIDE", "TASK", "TOOLS", "WEAPONS"]
__all__ += ["SETS", "SKETCHES", "STRANGE", "STRANGERS", "STYLES", "Set", "caption"]


@dataclass(frozen=True)
class Set:
    """One emoji set, which is one style."""

    style: str  # its word in a caption
    package: str
    version: str
    licence: str
    aliases: tuple[tuple[str, str], ...] = ()  # name here -> the icon's name there
    suffix: str = ""  # of the icons that are of this style, where a package has several


def _rows(kind: str) -> tuple[Set, ...]:
    rows = json.loads(Path(__file__).with_suffix(".json").read_text(encoding="utf-8"))[kind]
    return tuple(Set(**row | {"aliases": tuple(row.get("aliases", {}).items())}) for row in rows)


SETS = _rows("sets")
# Looked at, never shipped: drawings of other hands, on which the detector is measured.
STRANGERS = _rows("strangers")
# Drawings of one colour, lessons of the detector; and those on which it is measured alone.
SKETCHES, STRANGE = _rows("sketches"), _rows("strange")
STYLES = {each.style: each for each in SETS}
