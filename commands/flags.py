"""Flags from the table of options, and settings from what a command line gives."""

import argparse
from pathlib import Path

from ..host.prompts import read_lines
from ..options.table import Option, made, rows


def add_flags(
    parser: argparse.ArgumentParser,
    *kinds: type,
    of: str | None = None,
    without: tuple[str, ...] = (),
) -> None:
    """A flag for each row of some settings classes."""
    for name, row in rows(*kinds, of=of).items():
        if name not in without:
            add_flag(parser, row)


class _Given(argparse.Action):
    """Stores a value, and that it was typed: even the default wins then over what fills it."""

    def __call__(self, parser, namespace, values, option_string=None):
        setattr(namespace, self.dest, values)
        namespace.given = {*getattr(namespace, "given", ()), self.dest}


def add_flag(parser: argparse.ArgumentParser, row: Option) -> None:
    """A row of the table as a flag. What its settings refuse is refused when they are made."""
    told = {"dest": row.name, "default": row.default, "help": _help(row)}
    kind = type(row.default)
    if row.lines:
        parser.add_argument(row.flag, **{**told, "default": None}, type=Path, metavar="FILE")
    elif kind is bool:
        parser.add_argument(row.flag, **told, action=argparse.BooleanOptionalAction)
    elif _is_closed(row):
        named = {"metavar": row.name.upper()} if _has_spaces(row) else {}
        parser.add_argument(row.flag, **told, **named, action=_Given, choices=row.there())
    else:
        named = {"type": kind, "metavar": kind.__name__.upper()}
        parser.add_argument(row.flag, **told, **named, action=_Given)


def taken(options: argparse.Namespace, *kinds: type) -> list:
    """The settings that the flags give, one of each class; checked as they are made."""
    table, given = rows(*kinds), {}
    for name in table.keys() & vars(options).keys():
        value = getattr(options, name)
        given[name] = tuple(read_lines(value)) if table[name].lines else value
    return [made(kind, given) for kind in kinds]


def _is_closed(row: Option) -> bool:
    """Whether all choices are known without ComfyUI, and there is nothing beside them."""
    return bool(row.choices) and not callable(row.choices) and not row.other


def _help(row: Option) -> str:
    """A row's words; the choices too where the flag itself does not show them."""
    words = row.words.removesuffix(".")
    if row.other:
        words += f" ({', '.join((*row.there(), row.other))})"
    elif _is_closed(row) and _has_spaces(row):
        words += f" ({' | '.join(map(repr, row.there()))})"
    return words.replace("%", "%%")


def _has_spaces(row: Option) -> bool:
    return any(" " in choice for choice in row.there())
