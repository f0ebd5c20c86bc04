"""What the demo made as pages: the story itself, and the Registry's banner."""

import base64
import mimetypes
from collections.abc import Mapping
from pathlib import Path

from ...audit.stats import wilson
from .story import ARMS, SETS, rows_of

BANNERED = slice(1, 6)  # of the prompts


def rate(rows: list[dict]) -> dict:
    """Flagged pictures of some rows, with the 95 % Wilson interval."""
    flagged = sum(row["flagged"] for row in rows)
    low, high = wilson(flagged, len(rows))
    return {"flagged": flagged, "of": len(rows), "low": low, "high": high}


def inline(file: Path) -> str:
    """A picture as an address that holds it whole."""
    kind = mimetypes.guess_type(file.name)[0]
    return f"data:{kind};base64,{base64.b64encode(file.read_bytes()).decode()}"


def page(told: Mapping[str, dict[str, list[dict]]], chart: Path, merged: str, undone: str) -> str:
    """The story as one HTML page that needs nothing else.

    `merged` is Modular Merge's report, `undone` the one of the LoRA that was trained on top.
    """
    return _rendered(
        "index", arms=ARMS, sets=SETS, told=told, chart=chart, merged=merged, undone=undone
    )


def banner(base: Path, icon: Path) -> str:
    """The Registry's banner as a page: the icon, and what three models draw of five weapons."""
    weapons = rows_of(base, SETS[0])
    shown = {
        "The base model": "base",
        "Made safe, then fine-tuned": "sequential",
        "The same, modular": "modular",
    }
    return _rendered(
        "banner", icon=icon, lines={title: weapons[arm][BANNERED] for title, arm in shown.items()}
    )


def as_html(report: str) -> str:
    """A report in words, which is Markdown, as HTML; what it says itself is escaped."""
    from markdown_it import MarkdownIt
    from markupsafe import Markup

    return Markup(MarkdownIt("commonmark", {"html": False}).enable("table").render(report))


def _rendered(name: str, **values) -> str:
    from jinja2 import Environment, FileSystemLoader

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True
    )
    environment.filters |= {"rate": rate, "inline": inline, "as_html": as_html}
    return environment.get_template(f"{name}.html.j2").render(**values)
