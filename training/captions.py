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
TEXT, LISTED = ".txt", "metadata.jsonl"
# what other trainers call a caption's file; .txt itself is one in capitals
OTHER_TEXTS = (".caption", ".captions", ".cap", ".text", TEXT)


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
    Raises DataError for an empty folder, for a picture without a caption's file, for captions of no
    picture, and for those under another ending.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(f"{folder}: there is no such folder.")
    listed = folder / LISTED
    found = _from_metadata(listed) if listed.is_file() else _from_texts(folder)
    if not found:
        raise DataError(f"{folder}: no pictures in it ({', '.join(PICTURES)}).")
    return found


def caption_warnings(folder: Path, found: Sequence[Captioned]) -> list[str]:
    """What to say of a folder's empty captions, and of pictures that are not listed."""
    listed, place = folder / LISTED, folder.resolve().name
    bare = [each.path.name for each in found if not each.caption]
    if not listed.is_file():
        way = f"Write into the {TEXT} beside each."
        return without_caption(place, bare, len(found), way)
    told = without_caption(place, bare, len(found), f"Write their text into {LISTED}.")
    there = set(_pictures(folder))
    if left_out := sorted(path.name for path in there - {each.path for each in found}):
        told.append(
            f"{place}: {len(left_out)} of {amount(len(there), 'picture')} left out, as {LISTED}"
            f" does not name them (first: {left_out[0]}). Add a line for each to train on them."
        )
    return told


def without_caption(place: str, bare: Sequence[str], total: int, way: str) -> list[str]:
    """One warning of pictures that have no caption, given how the first are called; or none.

    It is no error: a style may want it.
    """
    if not bare:
        return []
    if len(bare) < total:
        return [
            f"{place}: {len(bare)} of {amount(total, 'picture')} without a caption (first:"
            f" {bare[0]}), trained with the empty prompt. {way}"
        ]
    return [
        f"{place}: not one of {amount(total, 'picture')} has a caption (first: {bare[0]}). All are"
        " trained with the empty prompt, so that no word calls what they teach. If you wrote"
        f" captions, this is another folder, or they are not where they are read. {way}"
    ]


def _pictures(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in PICTURES)


def _from_texts(folder: Path) -> list[Captioned]:
    pictures = _pictures(folder)
    named = {path.with_suffix("") for path in pictures}
    lonely = sorted(
        path.name for path in folder.glob(f"*{TEXT}") if path.with_suffix("") not in named
    )
    if lonely and pictures:
        raise DataError(
            f"{folder}: {amount(len(lonely), 'caption')} without a picture (first: {lonely[0]})."
            " Remove them or add the pictures."
        )
    bare = [path for path in pictures if not path.with_suffix(TEXT).is_file()]
    wanted = {path.with_suffix("") for path in bare}
    others = sorted(
        path.name
        for path in folder.iterdir()
        if path.suffix.lower() in OTHER_TEXTS and path.with_suffix("") in wanted
    )
    if others:
        raise DataError(
            f"{folder}: {len(others)} of {amount(len(pictures), 'picture')} with the caption under"
            f" another ending (first: {others[0]}). Only {TEXT} is read: rename them."
        )
    if bare:
        raise DataError(
            f"{folder}: {len(bare)} of {amount(len(pictures), 'picture')} without a caption (first:"
            f" {bare[0].name}). Put a {TEXT} of the same name beside each; it may be empty."
        )
    return _captioned(folder, pictures)


def _captioned(folder: Path, pictures: Sequence[Path]) -> list[Captioned]:
    """Pictures with the text beside each."""
    found: list[Captioned] = []
    wrong: list[tuple[str, Exception]] = []
    for path in pictures:
        file = path.with_suffix(TEXT)
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
    return Captioned(path, said["text"] if said["text"].strip() else "")
