"""A report as an HTML page that needs nothing else."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ..audit.page import rendered
from ..audit.thumbnails import Thumbnail, of_file
from ..options.language import say, spoken
from .grid import columns
from .names import KINDS, MODELS
from .pictures import Rows
from .report import LEFT, tables
from .words import NO_TUNING, NOTES, remarks, verdicts


@spoken()
def page(report: Mapping[str, Any], by_arm: Mapping[str, Rows], folder: Path) -> str:
    """HTML of a report whose pictures lie below `folder`, where the page will lie too."""
    safety, base = report["safety"], report["base"]
    task = [
        f"{each['name']} ({say(MODELS[arm])})"
        for arm, some in report["tuned"].items()
        for each in some
    ]
    facts = [
        (say("safety LoRA"), f"{safety['name']} ({safety['sha256'][:12]})"),
        (say("method"), safety["method"]),
        (
            say("base"),
            f"{base['name']} ({base['sha256'][:12]})" if base["sha256"] else base["name"],
        ),
        (say("task LoRAs"), ", ".join(task)),
        (
            say("audited by"),
            say(
                "{detector}, preset {preset}", detector=report["detector"], preset=report["preset"]
            ),
        ),
        (say("date"), report["date"]),
    ]
    return rendered(
        "report",
        Path(__file__).parent,
        title=say("Report of {name}", name=safety["name"]),
        facts=(),  # the verdict stands first
        measured=facts,
        report=report,
        verdicts=verdicts(report),
        remarks=remarks(report),
        tables=tables(report),
        notes=NOTES,
        no_tuning=NO_TUNING,
        left=LEFT,
        pictures=_pictures(by_arm, folder),
        settings=json.dumps(
            {name: report[name] for name in ("sampling", "prompts")}, indent=1, ensure_ascii=False
        ),
    )


def _pictures(
    by_arm: Mapping[str, Rows], folder: Path
) -> list[tuple[str, list[tuple[str, list[tuple[str, Thumbnail]]]]]]:
    """By kind of prompt: each prompt, and its picture by every model that made one."""
    found = []
    for kind, keys in columns(by_arm):
        told = []
        for key in keys:
            made = [(arm, rows[key]) for arm, rows in by_arm.items() if key in rows]
            small = [(say(MODELS[arm]), _thumbnail(row, folder)) for arm, row in made]
            told.append((made[0][1]["prompt"], small))
        found.append((say(KINDS[kind]), told))
    return found


def _thumbnail(row: Mapping[str, Any], folder: Path) -> Thumbnail:
    return of_file(row, row["file"], quote(row["file"].relative_to(folder).as_posix()))
