"""What an audit's report counts: a row here is a column of the JSON, the tables and the page.

A report of an earlier version lacks the columns that are newer than it. Those of the first version
are `first`: what lacks one of them is no report.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, TypeAlias

from pydantic import Field

from ..drawing.columns import Column
from ..drawing.markdown import share, span
from .stats import wilson

TILE, COMPARED, LISTED, WORDS, GROUPED = "tile", "compared", "listed", "words", "grouped"
EVERY = "pictures in all"  # a sum that those of a class have beside their own
Count = Annotated[int, Field(ge=0)]
Values: TypeAlias = Mapping[str, int]


@dataclass(frozen=True)
class Counted(Column):
    """A column that is added up over pictures, or made of what others add up to.

    `adds` is what one picture adds; `made` gives the value of all sums; `read` is its type in a
    report that is read.
    """

    adds: Callable[[Any], int] | None = None
    made: Callable[[Values], Any] | None = None
    read: Any = Count
    first: bool = False


class Sums:
    """Columns that are added up: millions of pictures need no list."""

    def __init__(self, columns: Sequence[Counted]):
        self.columns = columns
        self.sums = {each.key: 0 for each in columns if each.adds}

    def add(self, seen: object) -> None:
        for each in self.columns:
            if each.adds:
                self.sums[each.key] += each.adds(seen)

    def values(self, every: int = 0) -> dict[str, Any]:
        """The value of each column, of so many pictures in all."""
        sums = {EVERY: every, **self.sums}
        return {each.key: each.made(sums) if each.made else sums[each.key] for each in self.columns}


def counted(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The detections of one image's result that the preset counts."""
    return [found for found in result["detections"] if found["counted"]]


def known(columns: Sequence[Column], row: Mapping[str, Any]) -> dict[str, Any]:
    """The values of those columns that a report has."""
    return {each.key: row[each.key] for each in columns if each.key in row}


def rate(hits: int, total: int) -> float | None:
    """A rate; None of no pictures."""
    return hits / total if total else None


def rate_95(hits: int, total: int) -> list[float]:
    """Its 95 % Wilson interval."""
    return [round(bound, 6) for bound in wilson(hits, total)]


RATE, INTERVAL = float | None, tuple[float, float]
WILSON = "95 % Wilson interval"

PICTURES = (  # of an audit, of all its pictures; `adds` sees a picture's result
    Counted("images", "pictures", places=frozenset({TILE, GROUPED}), adds=lambda _: 1, first=True),
    Counted(
        "flagged",
        "flagged",
        places=frozenset({TILE, COMPARED, GROUPED}),
        adds=lambda result: result["flagged"],
        first=True,
    ),
    Counted(
        "flagged_rate",
        "rate",
        share,
        frozenset({TILE, COMPARED, GROUPED}),
        made=lambda sums: rate(sums["flagged"], sums["images"]),
        read=RATE,
        first=True,
    ),
    Counted(
        "flagged_rate_95",
        WILSON,
        span,
        frozenset({TILE, COMPARED, GROUPED}),
        made=lambda sums: rate_95(sums["flagged"], sums["images"]),
        read=INTERVAL,
        first=True,
    ),
    Counted(
        "counted_detections",
        "counted detections",
        places=frozenset({TILE, COMPARED}),
        adds=lambda result: len(counted(result)),
        first=True,
    ),
)
CLASSES = (  # of one class; `adds` sees what is counted of it in a picture where anything is
    Counted("count", "detections", places=frozenset({LISTED, WORDS}), adds=len, first=True),
    Counted("images", "pictures", places=frozenset({LISTED, WORDS}), adds=bool, first=True),
    Counted(
        "rate",
        "rate",
        share,
        frozenset({LISTED}),
        made=lambda sums: rate(sums["images"], sums[EVERY]),
        read=RATE,
        first=True,
    ),
    Counted(
        "rate_95",
        WILSON,
        span,
        frozenset({LISTED}),
        made=lambda sums: rate_95(sums["images"], sums[EVERY]),
        read=INTERVAL,
    ),
)
FILES = (  # of a long audit; `adds` sees the row of a file or a prompt
    Counted(
        "unreadable", "unreadable", places=frozenset({TILE}), adds=lambda row: "unreadable" in row
    ),
    Counted(
        "other_files",
        "files that are no pictures",
        places=frozenset({TILE}),
        adds=lambda row: "unreadable" not in row and "other" in row,
    ),
    Counted(
        "mislabelled",
        "named as another format",
        places=frozenset({TILE}),
        adds=lambda row: bool(row.get("mislabelled")),
    ),
    Counted(
        "animated",
        "with several frames",
        places=frozenset({TILE}),
        adds=lambda row: row.get("frames", 1) > 1 and "seconds" not in row,
    ),
    Counted(
        "films",
        "videos",
        places=frozenset({TILE}),
        adds=lambda row: "seconds" in row and "unreadable" not in row,
    ),
)
