"""The files of the log: `000000000001.jsonl` begins with line 1; `head` says how far it went."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

from .lines import LONGEST, START

FOLDER = "modular-safety-lora-log"  # below ComfyUI's user folder
HEAD, LOCK = "head", "lock"
_NAME = re.compile(r"\d{12}\.jsonl")
_HEAD = re.compile(rb"(\d{12}) ([0-9a-f]{64})\n")
MODE = 0o640  # it names users: for the operator and their group
WRITE = os.O_WRONLY | os.O_CREAT | getattr(os, "O_BINARY", 0)  # Windows would change the ends


def files_of(folder: Path) -> list[Path]:
    """The log's files, the oldest first."""
    found = folder.iterdir() if folder.is_dir() else ()
    return sorted(each for each in found if _NAME.fullmatch(each.name))


def file_from(folder: Path, number: int) -> Path:
    """The file that begins with a line."""
    return folder / f"{number:012d}.jsonl"


def lines_in(file: Path, place: int = 0) -> Iterator[tuple[bytes, bool, int]]:
    """(bytes, whether they end, the place behind them) of each line from a place on.

    Of an endless line the bytes are the beginning.
    """
    with file.open("rb") as opened:
        opened.seek(place)
        while raw := opened.readline(2 * LONGEST):
            place += len(raw)
            ended = raw.endswith(b"\n")
            while not ended and (rest := opened.readline(2 * LONGEST)):
                place += len(rest)
                ended = rest.endswith(b"\n")
            yield raw.removesuffix(b"\n"), ended, place


def read_head(folder: Path) -> tuple[int, str] | None:
    """(number, digest) of the last line that was written whole; None where nothing says so."""
    try:
        found = _HEAD.fullmatch((folder / HEAD).read_bytes())
    except FileNotFoundError:
        return None
    return (int(found[1]), found[2].decode()) if found else None


def write_head(folder: Path, number: int = 0, digest: str = START) -> None:
    """Say how far the log goes: 78 bytes, written in one call, which no kill divides."""
    file = os.open(folder / HEAD, WRITE, MODE)
    try:
        os.write(file, f"{number:012d} {digest}\n".encode())
    finally:
        os.close(file)


def sync_folder(folder: Path) -> None:
    """A new file's name, down to the disk; Windows has no such call."""
    if os.name == "nt":
        return
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
