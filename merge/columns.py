"""What a merge's report says of each module: a row here is a column of its JSON and table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..drawing.columns import Column, cells
from ..drawing.markdown import share

if TYPE_CHECKING:  # a report is read in words without ComfyUI
    from .entries import Entry
    from .ledger import Ledger

BEFORE = "already on the model"
ABSENT = object()  # of a column that a row has not


@dataclass(frozen=True)
class Brought:
    """What one module brought to a merge; without an `entry`, what was on the model before."""

    ledger: Ledger
    i: int
    entry: Entry | None = None

    def of_entry(self, read: Callable[[Entry], Any], before: object = None) -> Any:
        """What an entry gives, or what is said where there is none."""
        return before if self.entry is None else read(self.entry)

    @property
    def matched(self) -> int:
        if self.entry is None:
            return len(self.ledger.squares[self.i])
        return len(self.entry.coverage.matched)


@dataclass(frozen=True)
class OfModule(Column):
    """A column that `of` gives from what a module brought.

    `told` is what the table shows of the module's row in the report; a column without words `head`
    is in the JSON alone, and one without `of` in the table alone.
    """

    of: Callable[[Brought], Any] | None = None
    told: Callable[[Mapping[str, Any]], str] | None = None

    def cell(self, row: Mapping[str, Any]) -> str:
        """As the table shows it; a dash for what a report of an earlier version lacks."""
        return self.told(row) if self.told else cells([self], row)[0]


def rounded(value: float | None) -> float | None:
    """A number as reports hold it, to six digits."""
    return None if value is None else float(f"{value:.6g}")


def _strength(value: float | None) -> str:
    return "-" if value is None else f"{value:g}"


def _left(row: Mapping[str, Any]) -> str:
    pull = row.get("interference")
    return share(pull["retained_safety"] if pull else row.get("retained_safety"))


COLUMNS = (
    OfModule("name", "LoRA", of=lambda b: b.of_entry(lambda e: e.module.name, BEFORE)),
    OfModule("role", "role", of=lambda b: b.of_entry(lambda e: e.module.role, "existing")),
    OfModule("sha256", of=lambda b: b.of_entry(lambda e: e.module.sha256)),
    OfModule(
        "strength", "strength", _strength, of=lambda b: b.of_entry(lambda e: e.strength_model)
    ),
    OfModule("strength_clip", of=lambda b: b.of_entry(lambda e: e.strength_clip, ABSENT)),
    OfModule(
        "keys_matched",
        "fit",
        of=lambda b: b.matched,
        told=lambda row: f"{row['keys_matched']} of {row['keys_total']}",
    ),
    OfModule(
        "keys_total", of=lambda b: b.matched + b.of_entry(lambda e: len(e.coverage.unused), 0)
    ),
    OfModule(
        "keys_unused",
        of=lambda b: b.of_entry(lambda e: dict(sorted(e.coverage.unused.items())), {}),
    ),
    OfModule("relative_size", of=lambda b: rounded(b.ledger.relative_size(b.i))),
    OfModule("retained_safety", "safety left", told=_left),
)
SHOWN = [each for each in COLUMNS if each.head]


def row_of(brought: Brought) -> dict[str, Any]:
    """The module's row in the report: the columns that are known as soon as it is merged."""
    row = {each.key: each.of(brought) for each in COLUMNS if each.of}
    return {key: value for key, value in row.items() if value is not ABSENT}
