"""The language of the pages that a verb writes: a flag, or what the environment says."""

import argparse
import os
from dataclasses import dataclass

from ..options.language import languages, nearest
from ..options.table import check, option
from .flags import add_flags

ASKED = "LANGUAGE", "LC_ALL", "LC_MESSAGES", "LANG"  # in the order in which gettext asks


@dataclass(frozen=True)
class Pages:
    """Who reads the pages; what is printed, JSON and Markdown are English."""

    language: str = option(
        nearest(next((os.environ[name] for name in ASKED if os.environ.get(name)), "")),
        "The language of the HTML page; everything else stays English.",
        choices=languages(),
    )

    def __post_init__(self) -> None:
        check(self)


def add_language(parser: argparse.ArgumentParser) -> None:
    """The option of a verb that writes a page; `main` heeds it."""
    add_flags(parser, Pages)
