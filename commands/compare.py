"""Compare audits of pictures made with the same prompts and seeds, from their report.json files.

    python custom_nodes/modular-safety-lora compare base=base/report.json safe=safe/report.json \\
        --output FOLDER

The folder gets comparison.json, table.md and chart.png, and the table is printed; it is what the
node Compare Audits says.
"""

import argparse
from pathlib import Path

from ..audit.compare import chart, compare, comparison_table
from ..audit.reading import CompareError, parsed
from ..audit.report import as_text
from ..storage.whole import write_picture, write_text
from .kinds import folder


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "reports",
        nargs="+",
        metavar="NAME=REPORT",
        help="two to six reports, each with a name for it",
    )
    parser.add_argument("--output", type=folder, required=True, help="the folder of the results")


def work(options: argparse.Namespace) -> None:
    comparison = compare(read(options.reports))
    write_text(options.output / "comparison.json", as_text(comparison))
    write_text(options.output / "table.md", comparison_table(comparison) + "\n")
    write_picture(options.output / "chart.png", chart(comparison))
    print(comparison_table(comparison))


def read(named: list[str]) -> dict[str, dict]:
    """The reports by name, in their order.

    Raises CompareError for what is no report, or has no name of its own.
    """
    found: dict[str, dict] = {}
    for text in named:
        name, separator, path = text.partition("=")
        if not (name and separator) or name in found:
            raise CompareError(f"{text!r} must be NAME=REPORT, with its own name.")
        try:
            found[name] = parsed(path, Path(path).read_text(encoding="utf-8"))
        except UnicodeDecodeError as error:
            raise CompareError(f"{path} is not an audit report ({error}).") from error
    return found
