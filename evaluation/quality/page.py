"""What safety costs as an HTML page that needs nothing else."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...audit.about import DIGITS
from ...audit.page import rendered
from ...audit.thumbnails import of_file
from ...options.language import say, spoken
from ...storage.names import link
from .grid import Pair
from .resampling import DRAWS
from .words import AGAINST, HIGHER, NOTES, left_out, tables, verdict


@spoken()
def page(report: dict[str, Any], shown: Sequence[Pair], folder: Path) -> str:
    """HTML of a report for this folder, with the pairs that changed most."""
    names = [each["name"] for each in report["runs"]]
    title = say(
        "Quality of {name}",
        name=say(AGAINST, first=names[0], second=names[1]) if names[1:] else names[0],
    )
    models = report["models"]
    return rendered(
        "quality",
        Path(__file__).parent,
        title=title,
        facts=[
            (say("CLIP vision model"), models["clip_vision"][:DIGITS]),
            (say("text encoder"), models["clip"][:DIGITS]),
        ],
        verdict=verdict(report),
        tables=tables(report),
        notes=[
            *map(say, (HIGHER, *NOTES[: len(names)])),
            say("Intervals: 95 %, bootstrap over prompts, {count} draws.", count=DRAWS),
        ],
        left_out=[each.removeprefix("- ") for each in left_out(report)],
        names=names,
        shown=[
            (each, [of_file(one.row, one.file, link(one.file, folder)) for one in each.pictures])
            for each in shown
        ],
    )
