"""The files of a comparison: page, JSON, table and chart, of the reports of audits on disk."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..storage.names import link, read_back
from ..storage.whole import write_picture, write_text
from .compare import compare, comparison_table
from .compared_chart import chart
from .compared_page import compared_page
from .cost import costs
from .pairing import paired
from .reading import CompareError, parsed
from .report import as_text
from .thumbnails import Thumbnail, of_file

PAGE = "comparison.html"


def write_comparison(files: Mapping[str, Path], output: Path) -> dict[str, Any]:
    """Compare reports, by name and each with its file, and write the comparison; what it is.

    Raises CompareError for what is no report, or can't be compared.
    """
    folders = {name: path.parent for name, path in files.items()}
    texts = {name: _text(path) for name, path in files.items()}
    pairing = paired({name: parsed(str(files[name]), text) for name, text in texts.items()})
    comparison = compare(pairing, costs({name: (folders[name], texts[name]) for name in files}))

    def small(name: str, _: int, row: Mapping[str, Any]) -> Thumbnail | None:
        file = _picture(row, folders[name])
        return of_file(row, file, link(file, output)) if file else None

    page = compared_page(comparison, pairing, small)
    write_text(output / "comparison.json", as_text(comparison))
    write_text(output / PAGE, page)
    write_text(output / "table.md", comparison_table(comparison) + "\n")
    write_picture(output / "chart.png", chart(comparison))
    return comparison


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise CompareError(f"{path} is not an audit report ({error}).") from error


def _picture(row: Mapping[str, Any], folder: Path) -> Path | None:
    """The file of a report's picture: a prompt set's if it was kept, or the folder audit's own."""
    if "picture" in row:
        return folder / row["picture"]
    return Path(read_back(row["path"])) if row.get("path") else None
