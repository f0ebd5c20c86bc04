"""The embeddings that a prompt names, as ComfyUI finds them, and the files that hold them."""

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from comfy.sd1_clip import (
    escape_important,
    expand_directory_list,
    token_weights,
    unescape_important,
)

from ..modules.paths import content_sha256

WORD = "embedding:"  # how a prompt names an embedding's file
ENDS = (".safetensors", ".pt", ".bin")  # what the host tries behind a name, in this order
NAMED = re.compile(rf"\S*{WORD}\s*[^\s<\[]*")  # with what stands before it in the same word
NOTHING = f"{WORD} names nothing; write a name behind it, or leave it out"


@dataclass(frozen=True)
class Named:
    """An `embedding:` in a prompt: as it is written, and the `name` that the host looks for.

    No name: the host does not look for any, and reads what is `written` as words.
    """

    written: str
    name: str = ""


def named_in(text: str) -> tuple[list[Named], bool]:
    """What a text names, in the order of the text; whether an `embedding:` in it names nothing.

    Nothing is behind it, or the host takes what is behind it for a weight, as in `(embedding:1.2)`.
    The host itself breaks off with an IndexError at some of these, and leaves out others.
    """
    found: list[Named] = []
    bare, seen = False, 0
    if WORD not in text:
        return found, bare
    for piece in _pieces(text):
        seen += piece.count(WORD)
        written = NAMED.search(piece)
        if not written:
            continue
        before, _, behind = piece.partition(WORD)
        name = re.split(r"[<\[]", next(iter(behind.split()), ""))[0]
        if before:
            found.append(Named(written[0]))
        elif name.strip(","):
            found.append(Named(written[0], name))
        else:
            bare = True
        left = behind.lstrip()[len(name) :]
        found += [Named(each[0]) for each in re.finditer(rf"\S*{WORD}\S*", left)]
    return found, bare or seen < text.count(WORD)


def check_names(text: str) -> None:
    """Raise ValueError for a text with an `embedding:` that names nothing."""
    if named_in(text)[1]:
        raise ValueError(f"{text!r}: {NOTHING}.")


def digests_of(texts: Iterable[str], folders: Iterable[str]) -> dict[str, dict[str, str]]:
    """By text, for those with an `embedding:`: what they name that is in a folder, with SHA-256.

    More than one digest of a name: the host takes any of these files.
    """
    texts = [text for text in dict.fromkeys(texts) if WORD in text]
    places = expand_directory_list(folders) if texts else []
    return {text: dict(_digests(text, places)) for text in texts}


def several(digests: Mapping[str, str]) -> list[str]:
    """The names of more than one content."""
    return [name for name, found in digests.items() if " " in found]


def _pieces(text: str) -> Iterator[str]:
    """The parts of a text that the host reads by themselves, as its tokenizer cuts it."""
    for part, _ in token_weights(escape_important(text), 1.0):
        first, *more = re.split(rf"(?<=\s){WORD}", unescape_important(part))
        yield from (first, *(f"{WORD}{each}" for each in more))


def _digests(text: str, places: list[str]) -> Iterator[tuple[str, str]]:
    for name in (each.name for each in named_in(text)[0] if each.name):
        for tried in dict.fromkeys((name, name.strip(","))):
            files = filter(None, (_file(place, tried) for place in places))
            if found := sorted({content_sha256(each) for each in files}):
                yield f"{WORD}{tried}", " ".join(found)
                break


def _file(place: str, name: str) -> Path | None:
    """The file of a name in one folder, as `load_embed` looks for it."""
    both = Path(place).absolute(), Path(place, name).absolute()
    folder, path = map(os.path.normpath, both)
    try:
        if os.path.commonpath((folder, path)) != folder:
            return None
    except ValueError:  # on another drive
        return None
    tried = (Path(path + end) for end in ("", *ENDS))
    return next((each for each in tried if each.is_file()), None)
