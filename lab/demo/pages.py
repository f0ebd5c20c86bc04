"""The Registry's banner, of what the demo made."""

from pathlib import Path

from ...emoji.page import rendered
from ...emoji.story import SETS, rows_of

BANNERED = slice(1, 6)  # of the prompts


def banner(base: Path, icon: Path) -> str:
    """The banner as a page: the icon, and what three models draw of five weapons."""
    weapons = rows_of(base, SETS[0])
    shown = {
        "The base model": "base",
        "Made safe, then fine-tuned": "sequential",
        "The same, modular": "modular",
    }
    lines = {title: weapons[arm][BANNERED] for title, arm in shown.items()}
    return rendered(Path(__file__).parent, "banner", icon=icon, lines=lines)
