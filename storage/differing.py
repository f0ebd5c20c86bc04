"""In words, how what is asked of a run differs from what its file was made with."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

LONGEST = 60  # letters of a value that is shown
Difference = tuple[str, object, object]


def difference(
    before: Mapping[str, Any],
    now: Mapping[str, Any],
    called: Mapping[str, str],
    names: Mapping[str, str],
) -> str:
    """The first difference of two identities with both values, and how many more there are.

    `called` and `names` are what people call some of the values, before and now.
    """
    (what, one, two), *more = changes(before, now)
    values = f"{_shown(one, called.get(what))}; now {_shown(two, names.get(what))}"
    beside = f", and {len(more)} more" if more else ""
    return f"{what} ({values}{beside})"


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[Difference]:
    """(what, before, now) of every difference; where the names differ, these are the only one."""
    if before.get("name") != now.get("name"):
        yield "", before.get("name"), now.get("name")
        return
    for key in sorted(before.keys() | now.keys()):
        one, two = before.get(key), now.get(key)
        if isinstance(one, Mapping) and isinstance(two, Mapping):
            yield from ((f"{key} {name}".strip(), a, b) for name, a, b in changes(one, two))
        elif isinstance(one, Sequence) and isinstance(two, Sequence) and not isinstance(one, str):
            yield from _listed(key, one, two)
        elif one != two:
            yield key, one, two


def _listed(key: str, one: Sequence[Any], two: Sequence[Any]) -> Iterator[Difference]:
    """Of two lists what only one of them has, or that only their order differs."""
    gone, come = ([each for each in a if each not in b] for a, b in ((one, two), (two, one)))
    if gone or come:
        yield key, gone or "fewer", come or "fewer"
    elif one != two:
        yield key, "in this order", "in another"


def _shown(value: Any, name: str | None) -> str:
    if isinstance(value, Mapping):
        value = _called(value)
    if isinstance(value, list):
        value = ", ".join(map(str, value))
    if value is None:
        value = "none"
    text = value[:12] if isinstance(value, str) and len(value) == 64 else str(value)  # a digest
    text = text if len(text) <= LONGEST else f"{text[:LONGEST]}..."
    return f"{name}, {text}" if name else text


def _called(value: Mapping[str, Any]) -> str:
    """The name of some settings, or of the first part of them that has one."""
    inner = (each for each in value.values() if isinstance(each, Mapping))
    return value.get("name") or next(filter(None, map(_called, inner)), "")
