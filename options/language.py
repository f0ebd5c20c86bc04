"""What pages say, in the language of who reads them.

The English text is the key: `say("{count} of {all} flagged", count=3, all=5)` is what
`locales/<language>/pages.json` has for it, which is made of `words.po`, and English without one.
Only pages speak: JSON, Markdown and the terminal are English.
"""

import functools
import json
import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from gettext import c2py
from pathlib import Path

logger = logging.getLogger(__name__)
FOLDER, FILE, ENGLISH = Path(__file__).parents[1] / "locales", "pages.json", "en"
# Chinese is read in Traditional characters in these regions, or where a locale says so
TRADITIONAL, IN_TRADITIONAL = {"hant", "hk", "mo", "tw"}, "zh-TW"


def is_many(count: int) -> int:
    """Which form of a noun English takes: 0 of one, 1 of any other number."""
    return int(count != 1)


@dataclass(frozen=True)
class Speech:
    """A language: its texts by the English one, several where a number chooses; which it does."""

    language: str = ENGLISH
    texts: Mapping[str, str | list[str]] = field(default_factory=dict)
    form: Callable[[int], int] = is_many


IN_ENGLISH = Speech()
_reader: ContextVar[str] = ContextVar("reader", default=ENGLISH)
_speech: ContextVar[Speech] = ContextVar("speech", default=IN_ENGLISH)


def say(text: str, **places: object) -> str:
    """A text in the language of the page, with its places filled."""
    return said(text).format(**places)


def say_many(one: str, many: str, count: int, **places: object) -> str:
    """A text that has a form for one, and another for `{count}` of something."""
    return said_many(one, many, count).format(count=count, **places)


def said(text: str) -> str:
    """The same with its places empty."""
    found = _speech.get().texts.get(text, text)
    return found if isinstance(found, str) else text


def said_many(one: str, many: str, count: int) -> str:
    """The form for a number, with its places empty."""
    speech = _speech.get()
    found = speech.texts.get(one)
    forms, form = ((one, many), is_many) if found is None else (found, speech.form)
    return forms[form(count)]


def phrase(text: str) -> str:
    """A text that is kept as it is, and said where it is shown: `say` translates it then."""
    return text


def phrase_many(one: str, many: str) -> tuple[str, str]:
    """The same of a text with two forms, for `say_many`."""
    return one, many


def sentence(text: str) -> str:
    """The text as one that begins a sentence."""
    return text[:1].upper() + text[1:]


def listed(names: Iterable[str]) -> str:
    """Names in a row, as a sentence has them."""
    return f" {say('and')} ".join(names)


def language() -> str:
    """The language that is spoken now."""
    return _speech.get().language


@contextmanager
def read_in(language: str) -> Iterator[None]:
    """A block whose pages are in this language."""
    before = _reader.set(language)
    try:
        yield
    finally:
        _reader.reset(before)


@contextmanager
def spoken(speech: Speech | None = None) -> Iterator[None]:
    """What makes a page, as its decorator: it speaks the language of who reads it."""
    before = _speech.set(speech or speech_of(_reader.get()))
    try:
        yield
    finally:
        _speech.reset(before)


@functools.cache
def speech_of(language: str) -> Speech:
    """A language that ships; any other, and one whose file can't be read, is English."""
    if language == ENGLISH or language not in languages():
        return IN_ENGLISH
    file = FOLDER / language / FILE
    try:
        told = json.loads(file.read_text(encoding="utf-8"))
        return Speech(language, told["texts"], c2py(told["plural"]))
    except (OSError, ValueError, KeyError) as error:
        logger.warning("%s can't be read, so pages are English: %s", file, error)
        return IN_ENGLISH


@functools.cache
def languages() -> tuple[str, ...]:
    """Every language that pages are written in, as ComfyUI's setting `Comfy.Locale` names it."""
    return tuple(sorted({ENGLISH} | {file.parent.name for file in FOLDER.glob(f"*/{FILE}")}))


def nearest(names: str) -> str:
    """The language of the first locale that has pages, else English.

    `names` are as an environment has them (`pt_BR.UTF-8`, `de:en`), or a browser's request
    (`de-AT,de;q=0.9`).
    """
    for name in re.split("[,:]", names):
        said = _as_pages(re.split("[.@;]", name.strip())[0].replace("_", "-"))
        alike = [each for each in languages() if each.partition("-")[0] == said.partition("-")[0]]
        if alike:
            return said if said in alike else min(alike, key=len)
    return ENGLISH


def _as_pages(locale: str) -> str:
    """A locale by the name of its pages, where it has those of another one."""
    language, *more = locale.lower().split("-")
    traditional = language == "zh" and "hans" not in more and not TRADITIONAL.isdisjoint(more)
    return IN_TRADITIONAL if traditional else locale
