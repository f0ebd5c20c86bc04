"""The table of options: a field of a settings class is a row.

A row has the field's default, its range or choices, and its words. From it come the check of a
value, the node's input, the flag of the command line, and with the node's schema the entry of the
locale. A new option is one row and its use; it stands last on its nodes, so that saved workflows
keep their widgets.
"""

import math
import numbers
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

from .choices import chosen

TASK, SAFETY = "task", "safety"


@dataclass(frozen=True)
class Option:
    """A row: `name` is the node's input, and with dashes the flag; `field` the settings' field.

    A number is finite, and from `low` to `high`. A node's widget ends there, or sooner where
    `shown` says so, and moves by `step`. `choices` may be a function, for what is known only once
    ComfyUI is there. `other` says in words that a value beside the choices is taken too, which a
    node can't offer, and which is checked where it acts. With `lines` it is many texts: a line each
    on a node, and in a file on the command line.
    """

    name: str
    field: str
    default: object
    words: str
    low: float | None
    high: float | None
    step: float | None
    shown: tuple[float, float] | None
    choices: Iterable[str] | Callable[[], Iterable[str]]
    other: str
    lines: bool
    flag: str
    of: tuple[str, ...]

    @property
    def ends(self) -> tuple[float | None, float | None]:
        """Where a node's widget ends."""
        return self.shown or (self.low, self.high)

    def there(self) -> tuple[str, ...]:
        """The choices that there are now; none for a value that is free."""
        return tuple(self.choices() if callable(self.choices) else self.choices)

    def check(self, value: Any) -> None:
        """Raise ValueError for a value that the row does not allow, ChoiceError for such a word."""
        if self.choices and not self.other:
            chosen(value, self.there(), self.name)
        elif self.lines:
            if isinstance(value, str) or not all(isinstance(each, str) for each in value):
                raise ValueError(f"{self.name} is {value!r}; it must be a list of texts.")
        elif isinstance(self.default, (bool, str)):
            kind = type(self.default)
            if not isinstance(value, kind):
                told = "true or false" if kind is bool else "a text"
                raise ValueError(f"{self.name} is {value!r}; it must be {told}.")
        else:
            self._check_number(value)

    def _check_number(self, value: Any) -> None:
        kind = numbers.Integral if isinstance(self.default, int) else numbers.Real
        low = -math.inf if self.low is None else self.low
        high = math.inf if self.high is None else self.high
        is_number = isinstance(value, kind) and not isinstance(value, bool)
        if not (is_number and math.isfinite(value) and low <= value <= high):
            what = "whole" if kind is numbers.Integral else "finite"
            ends = [f"at least {_told(low)}"] * (self.low is not None)
            ends += [f"at most {_told(high)}"] * (self.high is not None)
            limits = f", {' and '.join(ends)}" if ends else ""
            raise ValueError(f"{self.name} is {value}; it must be a {what} number{limits}.")


def _told(number: float) -> str:
    return f"{number:g}" if isinstance(number, float) else str(number)


def option(
    default: Any,
    words: str,
    *,
    low: float | None = None,
    high: float | None = None,
    step: float | None = None,
    shown: tuple[float, float] | None = None,
    choices: Iterable[str] | Callable[[], Iterable[str]] = (),
    other: str = "",
    lines: bool = False,
    name: str = "",
    flag: str = "",
    of: tuple[str, ...] = (TASK, SAFETY),
) -> Any:  # as the field's own type, whatever that is: so is dataclasses.field
    """A row of the table, as the field of a settings class.

    `of` are the trainers that have it; other settings are of one door each.
    """
    row = {
        "words": words,
        "low": low,
        "high": high,
        "step": step,
        "shown": shown,
        "choices": choices if callable(choices) else tuple(choices),
        "other": other,
        "lines": lines,
        "of": of,
    }
    return field(default=default, metadata={"row": row, "name": name, "flag": flag})


def rows(*kinds: type, of: str | None = None) -> dict[str, Option]:
    """The rows of some settings classes and of those in them by name, of one trainer or of both."""
    found: dict[str, Option] = {}
    for kind in kinds:
        found |= {row.name: row for row in _own(kind) if of is None or of in row.of}
        found |= rows(*_inner(kind).values(), of=of)
    return found


def values_of(kind: type, given: Mapping[str, Any]) -> dict[str, Any]:
    """What is given of the fields of a settings class, by field, from values by name."""
    return {row.field: given[row.name] for row in _own(kind) if row.name in given}


def made(kind: type, given: Mapping[str, Any]) -> Any:
    """The settings of a class, and those in them, from values by name."""
    inner = {name: made(each, given) for name, each in _inner(kind).items()}
    return kind(**values_of(kind, given), **inner)


def check(settings: Any) -> None:
    """Raise ValueError for a value out of its row's range, or none of its choices."""
    for row in _own(type(settings)):
        row.check(getattr(settings, row.field))


def _own(kind: type) -> list[Option]:
    """The rows that are fields of a settings class."""
    found = []
    for each in fields(kind):
        if "row" in each.metadata:
            name = each.metadata["name"] or each.name
            flag = each.metadata["flag"] or f"--{name.replace('_', '-')}"
            row = each.metadata["row"]
            found.append(Option(name, each.name, each.default, flag=flag, **row))
    return found


def _inner(kind: type) -> dict[str, type]:
    """The settings classes that a settings class has a field of."""
    factories: dict[str, Any] = {each.name: each.default_factory for each in fields(kind)}
    return {
        name: each
        for name, each in factories.items()
        if isinstance(each, type) and is_dataclass(each)
    }
