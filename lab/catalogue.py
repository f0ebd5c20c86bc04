"""Gettext catalogues, `locales/<language>/words.po`: English text, and what it is in a language.

Babel reads, updates and writes them. An English text that changed is marked `fuzzy`: its old
translation stays for the translator, and is not used until the mark is taken away.
"""

import io
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from babel.messages.catalog import Catalog, Message
from babel.messages.pofile import read_po, write_po

HEADER = r"""# Edit this file alone, then run `python dev.py generate`.
msgid ""
msgstr ""
"Language: {language}\n"
"MIME-Version: 1.0\n"
"Content-Type: text/plain; charset=utf-8\n"
"Content-Transfer-Encoding: 8bit\n"
"Plural-Forms: {plurals}\n"

"""
# What a translation must hold as it is: code, placeholders, names of files and classes, numbers.
FIXED = re.compile(r"`[^`]+`|\{\w*\}|(?<!\S)#(?!\S)|[\w-]+(?:[./=][\w-]+)+|[A-Z]+_[A-Z_]+")


def read(file: Path, template: Catalog) -> Catalog:
    """The translations of a file for the texts of the template. No file is no translation."""
    catalog = Catalog(locale=file.parent.name.replace("-", "_"))
    if file.exists():
        catalog = read_po(io.BytesIO(file.read_bytes()), ignore_obsolete=True, abort_invalid=True)
    catalog.update(template)
    return catalog


def written(catalog: Catalog, language: str) -> str:
    """The file of a catalogue. A translation whose English is gone is not in it."""
    file = io.BytesIO()
    kept = {"omit_header": True, "ignore_obsolete": True, "include_lineno": False}
    write_po(file, catalog, width=0, **kept)  # a text on one line: a change is one line too
    named = {"language": language.replace("-", "_"), "plurals": catalog.plural_forms}
    return HEADER.format(**named) + file.getvalue().decode("utf-8")


def speaker(catalog: Catalog) -> Callable[..., str]:
    """A function from an English text, and its context, to the translation, or else the English."""

    def say(text: str, context: str | None = None) -> str:
        message = catalog.get(text, context)
        return str(message.string) if message and is_usable(message) else text

    return say


def is_usable(message: Message) -> bool:
    """Is there a translation, in all its forms, of the English as it is now?"""
    return bool(message.id and all(forms(message)) and not message.fuzzy)


def forms(message: Message) -> list[str | None]:
    """A translation, or each of its forms where a number chooses; none of what has none."""
    return list(message.string) if isinstance(message.string, (list, tuple)) else [message.string]


def english(message: Message) -> str:
    """The English text; of two forms the one for many."""
    return message.id if isinstance(message.id, str) else message.id[-1]


def unusable(catalog: Catalog) -> list[Message]:
    """What falls back to English: not translated yet, or of an English that changed."""
    return [message for message in catalog if message.id and not is_usable(message)]


def lost(catalog: Catalog) -> Iterator[tuple[str, set[str]]]:
    """Texts whose translation lacks what must stay as it is, with what it lacks."""
    for message in filter(is_usable, catalog):
        text = english(message)
        for form in forms(message):
            missing = {each for each in FIXED.findall(text) if each not in form}
            if missing:
                yield text, missing


def copied(catalog: Catalog) -> float:
    """Which share of the translations of several words is the English itself.

    Single words are left out: names such as CLIP are the same in every language.
    """
    several = [message for message in filter(is_usable, catalog) if " " in english(message)]
    return sum(english(each) in forms(each) for each in several) / max(len(several), 1)
