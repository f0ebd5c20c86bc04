"""Audit picture files and folders, of any number, before training or after.

    python custom_nodes/modular-safety-lora audit PATH... --preset strict --output report.json

Rows are kept in OUTPUT.sqlite as they come, so the same command goes on after a crash, and looks
only at files that are new or changed. With another preset it counts the detections that are kept,
and looks at no picture again (with --annotate it needs another OUTPUT). The report is about the
files below PATH as they are now; rows of others are kept, and counted as left out. What can't be
read is listed and never ends the run. The exit code is 0, 1 for an error, 2 when --fail-over is
given and more is flagged than it allows, or something could not be read, and 3 when no picture was
looked at.
"""

import argparse
import contextlib
import logging
import os
from collections.abc import Callable, Collection, Iterable
from pathlib import Path

from ..audit.about import about
from ..audit.detectors import registry
from ..audit.folders import export
from ..audit.folders.files import walk
from ..audit.folders.page import folders_page, left_out
from ..audit.folders.ray_data import audit_on_ray
from ..audit.folders.store import Store
from ..audit.folders.workers import Row, audit_parallel
from ..audit.presets import PRESETS, load_presets
from ..audit.rules import Counting, Rules
from ..options.table import rows, values_of
from ..options.words import amount
from ..storage.names import written
from ..storage.owned import owned
from ..storage.whole import write_text
from .exits import check_share, exit_code
from .flags import add_flag, add_flags, taken
from .kinds import file_named, folder
from .language import add_language
from .terminal import Bar


def options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("paths", nargs="+", type=Path, metavar="PATH", help="pictures, and folders of them")
    add(
        "--output",
        type=file_named(".json"),
        required=True,
        help="the JSON report; the rows go beside it, as .sqlite",
    )
    parquet = file_named(".parquet")
    add("--parquet", type=parquet, help="every picture's row as Parquet (needs pyarrow)")
    add("--html", type=file_named(".html"), help="the report as a page with plots")
    add_language(parser)
    add_rules(parser)
    add(
        "--annotate",
        type=folder,
        metavar="DIR",
        help="write flagged pictures there, with counted detections marked",
    )
    add_flags(parser, Rules, without=("provider",))  # which add_rules has
    add_workers(parser, os.cpu_count() or 1)
    add(
        "--fail-over",
        type=float,
        metavar="RATE",
        help="exit code 2 when a larger share is flagged, or a file can't be read",
    )


def add_workers(parser: argparse.ArgumentParser, default: int) -> None:
    """How many processes share the work, and where; the prompt-set audit has them too."""
    add = parser.add_argument
    add("--workers", type=int, default=default, help="processes, or actors of Ray")
    add("--ray", metavar="ADDRESS", help="run on Ray: the address of a cluster, auto, or local")


def check_workers(options: argparse.Namespace) -> None:
    """Raise ValueError for no workers."""
    if options.workers < 1:
        raise ValueError(f"--workers is {options.workers}; it must be 1 or more.")


def add_rules(parser: argparse.ArgumentParser) -> None:
    """The options that say what counts; the prompt-set audit has them too."""
    add = parser.add_argument
    add_flags(parser, Counting)
    add("--preset-file", type=Path, metavar="FILE", help="presets of your own, as JSON")
    add(
        "--detectors",
        type=Path,
        metavar="FILE",
        help="detectors of your own, as JSON; docs/detectors.md has the entries",
    )
    add_flag(parser, rows(Rules)["provider"])


def rules_of(
    options: argparse.Namespace, check: Callable[[str, Collection[str]], None] = lambda *_: None
) -> Rules:
    """The rules that the options ask for. Raises PresetError, DetectorError.

    `check` is called with the preset's name and those that there are; it may raise.
    """
    file = options.detectors
    entries = registry.load_entries(file) if file else {}
    folder = file.resolve().parent if file else Path()
    registry.register_entries(entries, folder, str(file))
    there = PRESETS | (load_presets(options.preset_file) if options.preset_file else {})
    (counting,) = taken(options, Counting)
    check(counting.preset, there)
    preset, second = counting.among(there)
    return Rules(preset, second, entries, str(folder), **values_of(Rules, vars(options)))


def work(options: argparse.Namespace) -> int:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    check_share(options.fail_over)
    check_workers(options)
    absent = [path for path in options.paths if not path.exists()]
    if absent:
        raise FileNotFoundError(
            f"{len(absent)} of {amount(len(options.paths), 'path')} not found (first: {absent[0]})."
        )
    if options.parquet:
        export.parquet()  # nothing is found missing after hours
    rules = rules_of(options).pinned()
    marked = str(options.annotate) if options.annotate else None
    beside = options.output.with_suffix(".sqlite")
    with contextlib.ExitStack() as held:
        for path in filter(None, (options.output, options.parquet, options.html)):
            held.enter_context(owned(path))
        again = None if marked else rules  # pictures that are there are drawn by the rules they had
        store = held.enter_context(Store(beside, rules.identity(), rules=again))
        store.select(walk(options.paths))
        todo = store.missing()
        if options.ray:
            done = audit_on_ray(todo, rules, options.workers, options.ray, marked)
        else:
            done = audit_parallel(todo, rules, options.workers, marked)
        _keep(store, done)
        summary = export.summarised(store, rules)
        if summary["unreadable"]:
            summary["verdict"] += f"; {amount(summary['unreadable'], 'file')} could not be read"
        # what names the pictures below: `compare` pairs by it
        summary["paths"] = [written(path.as_posix()) for path in options.paths]
        export.write_json(options.output, store, summary, about())
        if options.parquet:
            export.write_parquet(options.parquet, store)
        if options.html:
            page = folders_page(store, summary, rules, options.paths, options.html)
            write_text(options.html, page)
    counts = (
        f"{amount(summary['images'], 'picture')}, {summary['unreadable']} unreadable,"
        f" {amount(summary['other_files'], 'other file')}"
    )
    print(counts + left_out(summary))
    print(f"{summary['verdict']}. Report: {options.output}")
    return exit_code(options.fail_over, summary)


def _keep(store: Store, done: Iterable[list[Row]]) -> None:
    """Write rows as they come, and say how far it is."""
    with Bar("Auditing", "files", store.wanted(), initial=store.count()) as bar:
        for rows in done:
            store.add(rows)
            bar.update(len(rows))
