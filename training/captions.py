"""The pictures of a folder with their captions."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..options.errors import PackError
from ..options.words import amount
from ..storage.faults import told
from ..storage.names import valid
from ..storage.texts import TextError, read_text

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")


class DataError(PackError, ValueError):
    """Training data that can't be used.

    The message names the folder or file, the count and the first example.
    """


@dataclass(frozen=True)
class Captioned:
    """One picture file and its caption."""

    path: Path
    caption: str


def find_pictures(folder: Path) -> list[Captioned]:
    """The pictures of a folder with their captions.

    Captions come from `metadata.jsonl` if there is one, or else from a .txt beside each picture.
    Raises DataError for an empty folder and for pictures without a caption.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(f"{folder}: there is no such folder.")
    listed = folder / "metadata.jsonl"
    found = _from_metadata(listed) if listed.is_file() else _from_texts(folder)
    if not found:
        raise DataError(f"{folder}: no pictures in it ({', '.join(PICTURES)}).")
    return found


def _from_texts(folder: Path) -> list[Captioned]:
    pictures = sorted(path for path in folder.iterdir() if path.suffix.lower() in PICTURES)
    bare = [path.name for path in pictures if not path.with_suffix(".txt").is_file()]
    if bare:
        raise DataError(
            f"{folder}: {len(bare)} of {amount(len(pictures), 'picture')} without a caption (first:"
            f" {bare[0]}). Put a .txt of the same name beside each; it may be empty."
        )
    texts = {path.with_suffix("") for path in pictures}
    lonely = sorted(path.name for path in folder.glob("*.txt") if path.with_suffix("") not in texts)
    if lonely and pictures:
        raise DataError(
            f"{folder}: {amount(len(lonely), 'caption')} without a picture (first: {lonely[0]})."
            " Remove them or add the pictures."
        )
    return _captioned(folder, pictures)


def _captioned(folder: Path, pictures: Sequence[Path]) -> list[Captioned]:
    """Pictures with the text beside each."""
    found: list[Captioned] = []
    wrong: list[tuple[str, Exception]] = []
    for path in pictures:
        file = path.with_suffix(".txt")
        try:
            found.append(Captioned(path, read_text(file).strip()))
        except (OSError, TextError) as error:
            wrong.append((file.name, error))
    if wrong:
        name, fault = wrong[0]
        raise DataError(
            f"{folder}: {len(wrong)} of {amount(len(pictures), 'caption')} can't be read (first:"
            f" {name}: {told(fault)}). Save them as UTF-8."
        )
    return found


def _from_metadata(listed: Path) -> list[Captioned]:
    try:
        text = read_text(listed)
    except (OSError, TextError) as error:
        raise DataError(f"{listed}: it can't be read ({told(error)}). Save it as UTF-8.") from error
    return [
        _entry(listed, number, line)
        for number, line in enumerate(text.split("\n"), 1)
        if line.strip()
    ]


def _entry(listed: Path, number: int, line: str) -> Captioned:
    """The picture and caption of a line of metadata.jsonl."""
    place = f"{listed}: line {number}"
    try:
        entry = json.loads(line)
        said = {name: entry[name] for name in ("file_name", "text")}
    except (json.JSONDecodeError, KeyError, TypeError, RecursionError) as error:
        raise DataError(f"{place} must be JSON with file_name and text ({error!r}).") from error
    for name, value in said.items():
        if not isinstance(value, str) or valid(value) != value:
            raise DataError(f"{place}: {name} must be a text; it is {value!r:.80}.")
    path = listed.parent / said["file_name"]
    if not path.is_file():
        raise DataError(f"{place} names {said['file_name']}, which does not exist.")
    return Captioned(path, said["text"])
