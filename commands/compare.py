"""Compare audits of pictures made with the same prompts and seeds, from their report.json files.

    python custom_nodes/modular-safety-lora compare base=base/report.json safe=safe/report.json \\
        --output FOLDER

The folder gets comparison.html, comparison.json, table.md and chart.png, and the table is printed;
it is what the node Compare Audits says.
"""

import argparse
from pathlib import Path

from ..audit.compare import comparison_table
from ..audit.compared_files import PAGE, write_comparison
from ..audit.reading import CompareError
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
    comparison = write_comparison(named(options.reports), options.output)
    print(comparison_table(comparison))
    print(f"\nPage: {options.output / PAGE}")


def named(given: list[str]) -> dict[str, Path]:
    """The files of the reports by name, in their order.

    Raises CompareError for what has no name of its own.
    """
    found: dict[str, Path] = {}
    for text in given:
        name, separator, path = text.partition("=")
        if not (name and separator) or name in found:
            raise CompareError(f"{text!r} must be NAME=REPORT, with its own name.")
        found[name] = Path(path)
    return found
