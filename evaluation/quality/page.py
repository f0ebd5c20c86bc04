"""What safety costs as an HTML page that needs nothing else."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...audit.about import DIGITS
from ...audit.page import rendered
from ...audit.thumbnails import of_file
from ...storage.names import link
from .grid import Pair
from .words import HIGHER, NOTES, left_out, tables, verdict


def page(report: dict[str, Any], shown: Sequence[Pair], folder: Path) -> str:
    """HTML of a report for this folder, with the pairs that changed most."""
    names = [each["name"] for each in report["runs"]]
    title = f"Quality of {' against '.join(names)}"
    models = report["models"]
    return rendered(
        "quality",
        Path(__file__).parent,
        title=title,
        facts=[
            ("CLIP vision model", models["clip_vision"][:DIGITS]),
            ("text encoder", models["clip"][:DIGITS]),
        ],
        verdict=verdict(report),
        tables=tables(report),
        notes=[HIGHER, *NOTES[: len(names)], f"Intervals: {report['settings']['intervals']}."],
        left_out=[each.removeprefix("- ") for each in left_out(report)],
        names=names,
        shown=[
            (each, [of_file(one.row, one.file, link(one.file, folder)) for one in each.pictures])
            for each in shown
        ],
    )
