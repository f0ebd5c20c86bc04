"""What an audit's report counts: a row here is a column of the JSON, the tables and the page.

A report of an earlier version lacks the columns that are newer than it. Those of the first version
are `first`: what lacks one of them is no report.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, TypeAlias

from pydantic import Field

from ..drawing.columns import Column
from ..drawing.markdown import share, span
from .stats import Kinds, clustered, kinds_of, wilson

TILE, COMPARED, LISTED, WORDS, GROUPED = "tile", "compared", "listed", "words", "grouped"
EVERY = "pictures in all"  # a sum that those of a class have beside their own
PROMPTS = "kinds of prompts"  # beside them: stats.Kinds, none where each has one picture
Count = Annotated[int, Field(ge=0)]
Values: TypeAlias = Mapping[str, Any]


@dataclass(frozen=True)
class Counted(Column):
    """A column that is added up over pictures, or made of what others add up to.

    `adds` is what one picture adds; `made` gives the value of all sums; `read` is its type in a
    report that is read. With `several` it is there only where a prompt has several pictures.
    """

    adds: Callable[[Any], int] | None = None
    made: Callable[[Values], Any] | None = None
    read: Any = Count
    first: bool = False
    several: bool = False


class Sums:
    """Columns that are added up: millions of pictures need no list, only prompts are told apart."""

    def __init__(self, columns: Sequence[Counted]):
        self.columns = columns
        self.sums = {each.key: 0 for each in columns if each.adds}
        self.pictures: Counter[str] = Counter()  # by prompt, where a picture has one
        self.hits: Counter[str] = Counter()

    def add(self, seen: object, prompt: str | None = None, hit: bool = False) -> None:
        """Add what is seen in a picture, of this prompt; an interval is of the hits."""
        for each in self.columns:
            if each.adds:
                self.sums[each.key] += each.adds(seen)
        if prompt is not None:
            self.pictures[prompt] += 1
            self.hits[prompt] += hit

    def values(self, every: "Sums | None" = None) -> dict[str, Any]:
        """The value of each column; `every` are the sums of all pictures, if others than these."""
        all_of = every or self
        kinds = self._kinds(all_of)
        sums = {EVERY: all_of.sums.get("images", 0), PROMPTS: kinds, **self.sums}
        return {
            each.key: each.made(sums) if each.made else sums[each.key]
            for each in self.columns
            if kinds or not each.several
        }

    def _kinds(self, every: "Sums") -> Kinds:
        asked = every.pictures
        if len(asked) == asked.total() or asked.total() != every.sums["images"]:
            return ()
        return kinds_of((self.hits[prompt], pictures) for prompt, pictures in asked.items())


def prompt_of(row: Mapping[str, Any]) -> str | None:
    """The prompt that a picture is one of, where it is of a prompt."""
    return row.get("prompt_key") or row.get("key")


def counted(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The detections of one image's result that the preset counts."""
    return [found for found in result["detections"] if found["counted"]]


def known(columns: Sequence[Column], row: Mapping[str, Any]) -> dict[str, Any]:
    """The values of those columns that a report has."""
    return {each.key: row[each.key] for each in columns if each.key in row}


def rate(hits: int, total: int) -> float | None:
    """A rate; None of no pictures."""
    return hits / total if total else None


def rate_95(hits: int, total: int, kinds: Kinds = ()) -> list[float]:
    """Its 95 % interval: Wilson's, or by prompt where a prompt has several pictures."""
    return [round(bound, 6) for bound in (clustered(kinds) if kinds else wilson(hits, total))]


def _prompts(kinds: Kinds, least: int = 0) -> int:
    """How many prompts have so many hits at least."""
    return sum(count for (hits, _), count in kinds if hits >= least)


RATE, INTERVAL = float | None, tuple[float, float]
WITHIN = "95 % interval"

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
        WITHIN,
        span,
        frozenset({TILE, COMPARED, GROUPED}),
        made=lambda sums: rate_95(sums["flagged"], sums["images"], sums[PROMPTS]),
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
    Counted(
        "prompts_seen",
        "prompts",
        places=frozenset({GROUPED}),
        made=lambda sums: _prompts(sums[PROMPTS]),
        several=True,
    ),
    Counted(
        "prompts_flagged",
        "prompts flagged",
        places=frozenset({TILE, COMPARED, GROUPED}),
        made=lambda sums: _prompts(sums[PROMPTS], 1),
        several=True,
    ),
    Counted(
        "prompt_rate",
        "rate by prompt",
        share,
        frozenset({TILE, COMPARED, GROUPED}),
        made=lambda sums: rate(_prompts(sums[PROMPTS], 1), _prompts(sums[PROMPTS])),
        read=RATE,
        several=True,
    ),
    Counted(
        "prompt_rate_95",
        "interval by prompt",
        span,
        frozenset({TILE, COMPARED, GROUPED}),
        made=lambda sums: rate_95(_prompts(sums[PROMPTS], 1), _prompts(sums[PROMPTS])),
        read=INTERVAL,
        several=True,
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
        WITHIN,
        span,
        frozenset({LISTED}),
        made=lambda sums: rate_95(sums["images"], sums[EVERY], sums[PROMPTS]),
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
