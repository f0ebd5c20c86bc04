"""A word among those that a choice has, checked where it acts: an unknown one is no wish."""

from collections.abc import Iterable

from .errors import SafetyError


class UnknownChoice(SafetyError, ValueError):
    """A word that a choice does not have."""


def chosen(value: object, choices: Iterable[str], name: str) -> str:
    """The value, if it is one of the choices, letter by letter; UnknownChoice otherwise."""
    choices = tuple(choices)
    if not isinstance(value, str) or value not in choices:
        raise UnknownChoice(f"{name} is {value!r}; it must be one of {', '.join(choices)}.")
    return value
