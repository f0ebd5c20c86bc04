"""The report as one HTML page that needs nothing else: verdict, plots, tables, rules, settings."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .charts import plots


def page(
    title: str,
    summary: Mapping[str, Any],
    flagged: Sequence[Mapping[str, Any]],
    unreadable: Sequence[Mapping[str, Any]],
    settings: Mapping[str, Any],
    *,
    note: str = "",
) -> str:
    """HTML of a long audit.

    `flagged` and `unreadable` are its first rows of that kind; texts in them are escaped.
    """
    from jinja2 import Environment, FileSystemLoader  # torch requires it

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True
    )
    return environment.get_template("page.html.j2").render(
        title=title,
        summary=summary,
        plots=plots(summary) if summary["images"] else [],
        flagged=flagged,
        unreadable=unreadable,
        settings=json.dumps(settings, indent=1, ensure_ascii=False),
        note=note,
    )
