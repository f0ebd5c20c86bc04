"""The story as one HTML page that needs nothing else."""

import base64
import mimetypes
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..audit.stats import wilson
from ..drawing.html import as_html
from .story import ARMS, SETS, armed

TEMPLATES = Path(__file__).parent


def rate(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Flagged pictures of some rows, with the 95 % Wilson interval."""
    flagged = sum(row["flagged"] for row in rows)
    low, high = wilson(flagged, len(rows))
    return {"flagged": flagged, "of": len(rows), "low": low, "high": high}


def inline(file: Path) -> str:
    """A picture as an address that holds it whole."""
    kind = mimetypes.guess_type(file.name)[0]
    return f"data:{kind};base64,{base64.b64encode(file.read_bytes()).decode()}"


def page(
    told: Mapping[str, dict[str, list[dict[str, Any]]]], chart: Path, merged: str, undone: str
) -> str:
    """The page of what each arm drew (`story.rows_of`, by set).

    `merged` is Modular Merge's report, `undone` the one of the LoRA that was trained on top.
    """
    shown = {"arms": ARMS, "sets": SETS, "told": told, "chart": chart}
    return rendered(TEMPLATES, "page", merged=merged, undone=undone, **shown)


def rendered(folder: Path, name: str, **values: object) -> str:
    """A template of a folder, with the filters of this file."""
    from jinja2 import Environment, FileSystemLoader

    environment = Environment(
        loader=FileSystemLoader(folder), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"rate": rate, "armed": armed, "inline": inline, "as_html": as_html}
    return environment.get_template(f"{name}.html.j2").render(**values)
