"""The report of files and folders as an HTML page."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...options.language import say, say_many, spoken
from ...options.words import amount
from ...storage.names import link, read_back, written
from ..about import about
from ..page import page
from ..rules import Rules
from ..thumbnails import Thumbnail, of_file
from . import export
from .store import Store


@spoken()
def folders_page(
    store: Store, summary: Mapping[str, Any], rules: Rules, paths: Sequence[Path], file: Path
) -> str:
    """HTML of an audit of what is below these paths, for this file."""

    def small(row: Mapping[str, Any]) -> Thumbnail:
        picture = Path(read_back(row["path"]))
        return of_file(row, picture, link(picture, file.parent))

    title = say("Audit of {name}", name=", ".join(written(path.name) for path in paths))
    note = say(
        "{pictures} below {folders}",
        pictures=amount(summary["images"], "picture"),
        folders=", ".join(summary["paths"]),
    )
    settings = rules.identity() | {"paths": [written(path) for path in paths]}
    shown = export.shown(store, small)
    return page(title, about(), summary, shown, settings, note=note + left_out(summary))


def left_out(summary: Mapping[str, Any]) -> str:
    """How many rows are kept that this run is not about; empty where there are none."""
    count = summary["rows_left_out"]
    if not count:
        return ""
    return "; " + say_many(
        "{count} row of other files kept and left out",
        "{count} rows of other files kept and left out",
        count,
    )
