"""Compare audits of pictures made with the same prompts and seeds, from their report.json files.

    python custom_nodes/modular-safety-lora compare base=base/report.json safe=safe/report.json \\
        --output FOLDER

The folder gets comparison.html, comparison.json, table.md and chart.png, and the table is printed;
it is what the node Compare Audits says.
"""

import argparse
from collections.abc import Mapping
from pathlib import Path

from ..audit.compare import compare, comparison_table
from ..audit.compared_chart import chart
from ..audit.compared_page import compared_page
from ..audit.cost import costs
from ..audit.pairing import paired
from ..audit.reading import CompareError, parsed
from ..audit.report import as_text
from ..audit.thumbnails import Thumbnail, of_file
from ..storage.names import link, read_back
from ..storage.whole import write_picture, write_text
from .kinds import folder
from .language import add_language


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "reports",
        nargs="+",
        metavar="NAME=REPORT",
        help="two to six reports, each with a name for it",
    )
    parser.add_argument("--output", type=folder, required=True, help="the folder of the results")
    add_language(parser)


def work(options: argparse.Namespace) -> None:
    write(read(options.reports), options.output)


def write(found: Mapping[str, tuple[Path, dict]], output: Path) -> None:
    """Write the comparison of reports, by name and with the file of each, and print its table."""
    folders = {name: path.parent for name, (path, _) in found.items()}
    pairing = paired({name: report for name, (_, report) in found.items()})
    texts = {name: path.read_text(encoding="utf-8") for name, (path, _) in found.items()}
    comparison = compare(pairing, costs({name: (folders[name], texts[name]) for name in found}))

    def small(name: str, _: int, row: Mapping) -> Thumbnail | None:
        file = _picture(row, folders[name])
        return of_file(row, file, link(file, output)) if file else None

    page = compared_page(comparison, pairing, small)
    write_text(output / "comparison.json", as_text(comparison))
    write_text(output / "comparison.html", page)
    write_text(output / "table.md", comparison_table(comparison) + "\n")
    write_picture(output / "chart.png", chart(comparison))
    print(comparison_table(comparison))
    print(f"\nPage: {output / 'comparison.html'}")


def _picture(row: Mapping, folder: Path) -> Path | None:
    """The file of a report's picture: a prompt set's if it was kept, or the folder audit's own."""
    if "picture" in row:
        return folder / row["picture"]
    return Path(read_back(row["path"])) if row.get("path") else None


def read(named: list[str]) -> dict[str, tuple[Path, dict]]:
    """The reports by name, in their order, each with its file.

    Raises CompareError for what is no report, or has no name of its own.
    """
    found: dict[str, tuple[Path, dict]] = {}
    for text in named:
        name, separator, path = text.partition("=")
        if not (name and separator) or name in found:
            raise CompareError(f"{text!r} must be NAME=REPORT, with its own name.")
        try:
            found[name] = Path(path), parsed(path, Path(path).read_text(encoding="utf-8"))
        except UnicodeDecodeError as error:
            raise CompareError(f"{path} is not an audit report ({error}).") from error
    return found
