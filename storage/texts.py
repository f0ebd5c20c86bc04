"""Texts that people wrote in files: UTF-8, or what says by its first bytes that it is UTF-16."""

import codecs
from pathlib import Path

from ..options.errors import PackError


class TextError(PackError, ValueError):
    """A file that holds no text, as far as can be told; the message says why, without its name."""


def read_text(path: Path) -> str:
    """The text of a file without a mark of its order of bytes.

    What is no UTF-8 is refused and not guessed at: a letter that was read wrongly is trained on,
    or is another prompt. Raises TextError, and OSError for a file that can't be read.
    """
    raw = path.read_bytes()
    utf_16 = raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        text = raw.decode("utf-16" if utf_16 else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise TextError(f"it is not UTF-8: {error.reason} at byte {error.start}") from error
    if "\0" in text:
        raise TextError("it holds NUL bytes, as UTF-16 without its mark does")
    return text
