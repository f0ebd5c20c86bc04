"""Reports as HTML pages that need nothing else: what they are about, the verdict, then the rest."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..drawing.columns import Column, among, heads
from ..drawing.markdown import share
from ..options.language import language, phrase, said, say, spoken
from .about import STATES, facts
from .charts import plots
from .columns import CLASSES, FILES, LISTED, PICTURES, TILE
from .thumbnails import Thumbnail
from .words import times, verdict

HERE = Path(__file__).parent
UNMADE = phrase("prompts without a picture"), phrase("pictures not made")


@dataclass(frozen=True)
class Shown:
    """The rows of a long audit that its page shows, the first of each kind."""

    flagged: Sequence[Mapping[str, Any]]
    unreadable: Sequence[Mapping[str, Any]]
    thumbnails: Sequence[Thumbnail] = ()


@spoken()
def page(
    title: str,
    about: Mapping[str, Any],
    summary: Mapping[str, Any],
    shown: Shown,
    settings: Mapping[str, Any],
    *,
    note: str = "",
) -> str:
    """HTML of a long audit; texts in it are escaped."""
    detector = say(
        "{detector} {version} on {provider}",
        detector=summary["detector"],
        version=summary["detector_version"],
        provider=summary["provider"],
    )
    known = facts(about)[bool(about["run"]) :]
    return rendered(
        "audit_page",
        title=title,
        facts=[*known, (say("looked at"), note), (say("detector"), detector)],
        verdict=verdict(summary),
        state=say(STATES[about["safety_lora"]]),
        summary=summary,
        unit=said(summary["unit"]),
        tiles=_tiles(summary),
        plots=plots(summary) if summary["images"] else [],
        listed=list(zip(among(CLASSES, LISTED), heads(among(CLASSES, LISTED)), strict=True)),
        shown=shown,
        settings=json.dumps(settings, indent=1, ensure_ascii=False),
    )


def rendered(template: str, folder: Path = HERE, **values: Any) -> str:
    """A page of a folder, on this one's `page`; texts in it are escaped."""
    from jinja2 import Environment, FileSystemLoader  # torch requires it, and it markupsafe
    from markupsafe import escape

    environment = Environment(
        loader=FileSystemLoader([folder, HERE]), autoescape=True, trim_blocks=True
    )
    environment.filters |= {"share": share, "times": times, "highest": _highest}
    environment.globals |= {
        "language": language(),
        "said": said,
        "say": lambda text, **places: escape(said(text)).format(**places),
    }
    return environment.get_template(f"{template}.html.j2").render(**values)


def _highest(detections: Sequence[Mapping[str, Any]] | None) -> str:
    """The highest score of what was detected, for sorting; nothing where nothing was."""
    return f"{max(each['score'] for each in detections):.4f}" if detections else ""


def _tiles(summary: Mapping[str, Any]) -> list[tuple[str, str, bool]]:
    """(value, words, whether it is bad) of what is shown large."""
    unmade = summary.get("not_made") is not None
    own = {"unreadable": UNMADE["prompts_seen" in summary]} if unmade else {}
    columns: list[Column] = [
        each
        for each in among(PICTURES, TILE)
        if each.key in summary and (summary["images"] or each.key in ("images", "flagged"))
    ]
    columns += [each for each in among(FILES, TILE) if summary.get(each.key)]
    return [
        (
            each.shown(summary[each.key]),
            say(own.get(each.key, each.head)),
            each.key in ("flagged", "unreadable") and bool(summary[each.key]),
        )
        for each in columns
    ]
