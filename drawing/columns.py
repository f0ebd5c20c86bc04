"""The columns of reports: each has its key in the JSON, its words, and how a value is shown."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from ..options.language import say


@dataclass(frozen=True)
class Column:
    """A column of a report; `places` are the tables that show it, under the words `head`."""

    key: str
    head: str = ""
    shown: Callable[[Any], str] = str
    places: frozenset[str] = frozenset()


Kind = TypeVar("Kind", bound=Column)


def among(columns: Iterable[Kind], place: str) -> list[Kind]:
    """The columns that a table shows."""
    return [each for each in columns if place in each.places]


def cells(columns: Sequence[Column], row: Mapping[str, Any]) -> list[str]:
    """A row as a table shows it; a dash for what a report of an earlier version lacks."""
    return [each.shown(row[each.key]) if each.key in row else "-" for each in columns]


def heads(columns: Sequence[Column]) -> list[str]:
    return [say(each.head) for each in columns]
