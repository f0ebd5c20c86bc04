"""Registries: what there is to choose, by name, from rows or from the files of a folder."""

import importlib
import pkgutil
from collections.abc import Collection, Iterable, Iterator
from typing import Any, TypeVar

from .errors import PackError

Value = TypeVar("Value")


class RegistryError(PackError, ValueError):
    """Two rows have one name, or a file has none; the message names the files."""


def by_name(rows: Iterable[tuple[str, str, Value]]) -> dict[str, Value]:
    """What there is to choose, by name, from (name, file, what it is).

    Raises RegistryError for a name that stands twice.
    """
    found: dict[str, Value] = {}
    files: dict[str, str] = {}
    for name, file, value in rows:
        if name in found:
            raise RegistryError(
                f"{name!r} is named twice, in {files[name]} and in {file}; rename one of them."
            )
        found[name], files[name] = value, file
    return found


def marked(
    package: str, mark: str, helpers: Collection[str], registry: str
) -> Iterator[tuple[str, Any]]:
    """(file, what it has as its `mark`) for each file of a package but its `helpers`.

    `registry` is the file that names the helpers. Raises RegistryError for a file without the mark:
    what was written to be found would be left out.
    """
    for each in pkgutil.iter_modules(importlib.import_module(package).__path__):
        if each.name in helpers:
            continue
        file = importlib.import_module(f".{each.name}", package)
        if not hasattr(file, mark):
            raise RegistryError(
                f"{file.__file__} has no {mark}. Give it one, or add {each.name!r} to the helpers"
                f" in {registry}."
            )
        yield f"{file.__file__}", getattr(file, mark)
