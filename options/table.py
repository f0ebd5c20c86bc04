"""The table of the trainers' options: a field of a settings class is a row.

A row has the field's default, its range and its words. From it come the check of a value, the
node's input, the flag of the command line, and with the node's schema the entry of the locale. A
new option is one row and its use; it stands last on its nodes, so that saved workflows keep their
widgets.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

from .choices import chosen

TASK, SAFETY = "task", "safety"


@dataclass(frozen=True)
class Option:
    """A row: `name` is the node's input, and with dashes the flag; `field` the settings' field.

    A value below `low` or above `high` is refused; a node's widget ends there, and moves by `step`.
    `other` says in words that a value beside the choices is taken too, which a node can't offer.
    """

    name: str
    field: str
    default: object
    words: str
    low: float | None
    high: float | None
    step: float | None
    choices: tuple[str, ...]
    other: str
    of: tuple[str, ...]

    @property
    def flag(self) -> str:
        return f"--{self.name.replace('_', '-')}"


def option(
    default: Any,
    words: str,
    *,
    low: float | None = None,
    high: float | None = None,
    step: float | None = None,
    choices: Iterable[str] = (),
    other: str = "",
    name: str = "",
    of: tuple[str, ...] = (TASK, SAFETY),
) -> Any:  # as the field's own type, whatever that is: so is dataclasses.field
    """A row of the table, as the field of a settings class."""
    row = {
        "words": words,
        "low": low,
        "high": high,
        "step": step,
        "choices": tuple(choices),
        "other": other,
        "of": of,
    }
    return field(default=default, metadata={"row": row, "name": name})


def rows(*kinds: type, of: str | None = None) -> dict[str, Option]:
    """The rows of some settings classes by name, those of one trainer or of both."""
    found = {}
    for kind in kinds:
        for each in fields(kind):
            if "row" in each.metadata and (of is None or of in each.metadata["row"]["of"]):
                name = each.metadata["name"] or each.name
                found[name] = Option(name, each.name, each.default, **each.metadata["row"])
    return found


def values_of(kind: type, given: Mapping[str, Any]) -> dict[str, Any]:
    """What is given of the fields of a settings class, by field, from values by name."""
    return {row.field: given[name] for name, row in rows(kind).items() if name in given}


def check(settings: Any) -> None:
    """Raise ValueError for a value out of its row's range, or none of its choices."""
    assert is_dataclass(settings)
    for row in rows(type(settings)).values():
        value = getattr(settings, row.field)
        if row.choices and not row.other:
            chosen(value, row.choices, row.name)
        high = math.inf if row.high is None else row.high
        if row.low is not None and not (math.isfinite(value) and row.low <= value <= high):
            raise ValueError(
                f"{row.name} is {value}; it must be a finite number, at least {row.low:g}"
                + ("." if row.high is None else f" and at most {high:g}.")
            )
