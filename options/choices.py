"""Choices among a few words, checked where they act: a link, a script or a file may bring any."""

from collections.abc import Iterable

from .errors import PackError


class ChoiceError(PackError, ValueError):
    """A word that is none of those there are; the message names it, them and the way out."""


def chosen(value: object, choices: Iterable[str], name: str) -> str:
    """`value`, if it is one of the choices to the letter. Raises ChoiceError.

    `name` is what is chosen: `action`, `unit`.
    """
    there = tuple(choices)
    if not (isinstance(value, str) and value in there):
        raise ChoiceError(
            f"{name} is {value!r}; it must be one of {', '.join(there)}, written exactly so."
        )
    return value
