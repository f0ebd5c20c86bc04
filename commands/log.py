"""Read the evidence log: whether it is whole, its figures, its lines. Needs no ComfyUI.

    python custom_nodes/modular-safety-lora log verify
    python custom_nodes/modular-safety-lora log summary
    python custom_nodes/modular-safety-lora log show --kind refused --last 20
    python custom_nodes/modular-safety-lora log page --output log.html

It looks below ComfyUI's `user` folder, unless --folder names another log. `verify` tells a line
that was changed, removed, moved or cut off, and its exit code is 1 then. Somebody who may write
there can write the whole log again, so keep the digest that it prints somewhere else, and give it
back with --known.
"""

import argparse
import json
from collections import deque
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path

from ..drawing.markdown import table
from ..evidence.figures import OWN, PICTURES
from ..evidence.files import FOLDER
from ..evidence.lines import Line
from ..evidence.summary import SHOWN, Summary, summary, user_of
from ..evidence.verify import Verified, read_lines, verify
from ..options.words import amount
from ..storage.whole import write_text
from .base import add_comfyui
from .kinds import file_named
from .users import user_folder

SHORT = 20  # rows of a table in the terminal


def options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("what", choices=WORK, help="what to do")
    add("--folder", type=Path, metavar="FOLDER", help="the log, where it is another")
    add_comfyui(parser)
    add("--known", default="", metavar="DIGEST", help="verify: a digest that was noted earlier")
    add("--json", action="store_true", help="verify, summary, show: as JSON")
    add("--kind", metavar="KIND", help="show: lines of one kind, such as refused")
    add("--user", help="show: lines of one user")
    add("--last", type=int, metavar="N", help="show: only the newest")
    add("--output", type=file_named(".html"), metavar="FILE", help="page: the file to write")


def work(options: argparse.Namespace) -> int:
    folder = options.folder or user_folder(options.comfyui) / FOLDER
    return WORK[options.what](folder, options)


def _verify(folder: Path, options: argparse.Namespace) -> int:
    found = verify(folder, options.known)
    if options.json:
        print(json.dumps(vars(found), indent=1))
    else:
        print("\n".join(_verdict(found)))
    return 0 if found.whole else 1


def _verdict(found: Verified) -> list[str]:
    said = [*found.faults, *([f"And {found.more} more."] if found.more else []), *found.notes]
    lines = f"{amount(found.lines, 'line')} in {amount(found.files, 'file')}"
    first = f"The log is whole: {lines}." if found.whole else f"NOT AS IT WAS WRITTEN: {lines}."
    return [first, *said, f"Last line {found.last}, digest {found.digest}"]


def _summary(folder: Path, options: argparse.Namespace) -> int:
    found = summary(read_lines(folder))
    if options.json:
        print(
            json.dumps(vars(found) | {"reasons": found.reasons, "unended": found.unended}, indent=1)
        )
        return 0
    print(f"{amount(found.lines, 'line')}, {found.first} to {found.last}; verify says if all are")
    print("as they were written.")
    if found.unended:
        print(f"{amount(found.unended, 'prompt')} without an end: they wait, run, or were cut off.")
    for title, columns, rows in _tables(found):
        if rows:
            print("", *table([title, *columns], rows), sep="\n")
    if found.reasons:
        print("", *table(["reason of refusal", "refusals"], found.reasons.items()), sep="\n")
    return 0


def _tables(found: Summary) -> Iterable[tuple[str, Sequence[str], list[list[object]]]]:
    """(head, columns, rows): in all, and the newest of each kind."""
    yield "in all", SHOWN, [["", *(found.total[each] for each in SHOWN)]]
    pictures = SHOWN[SHOWN.index(PICTURES) :]
    kinds = (("day", SHOWN, found.days), ("user", SHOWN, found.users))
    for title, columns, rows in (*kinds, ("preset", pictures, found.presets)):
        newest = list(rows.items())[-SHORT:]
        yield title, columns, [[name, *(row[each] for each in columns)] for name, row in newest]


def _show(folder: Path, options: argparse.Namespace) -> int:
    found = (each for each in read_lines(folder) if _is_wanted(each, options))
    if options.last is not None:
        found = iter(deque(found, max(0, options.last)))
    for line in found:
        print(line.raw.decode() if options.json else _in_a_line(line))
    return 0


def _is_wanted(line: Line, options: argparse.Namespace) -> bool:
    if options.kind:
        return line.kind == options.kind and options.user in (None, user_of(line))
    return line.kind not in OWN and options.user in (None, user_of(line))


def _in_a_line(line: Line) -> str:
    """A line for people: when, who, what, and what there is to say."""
    facts = {name: each for name, each in line.facts.items() if name not in ("user", "client")}
    said = facts.pop("message", None) or ", ".join(
        f"{name}: {each if isinstance(each, str) else json.dumps(each, ensure_ascii=False)}"
        for name, each in islice(facts.items(), 12)
        if each not in (None, "", [], {})
    )
    return f"{line.number} {line.time[:19]}Z {line.kind} ({user_of(line)}) {said}"


def _page(folder: Path, options: argparse.Namespace) -> int:
    from ..evidence.page import page

    if options.output is None:
        raise ValueError("log page needs --output FILE.html.")
    verified = verify(folder)
    write_text(options.output, page(summary(read_lines(folder)), verified, folder))
    print(options.output)
    return 0 if verified.whole else 1


WORK = {"verify": _verify, "summary": _summary, "show": _show, "page": _page}
