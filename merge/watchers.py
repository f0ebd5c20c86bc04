"""Who is told of what locks do: of every sampling that passed one, and of everything refused."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from ..modules.errors import ModuleFileError, SafetyError, ShapeMismatch

# called with the lock, before anything is loaded or computed; what one raises ends the sampling
samplings: set[Callable[[Any], None]] = set()
# called with what refuses to load, merge, encode or sample
refusals: set[Callable[[Exception], None]] = set()
REFUSED = (SafetyError, ModuleFileError, ShapeMismatch)


@contextlib.contextmanager
def refusing() -> Iterator[None]:
    """A block whose refusals are told."""
    try:
        yield
    except REFUSED as error:
        for each in refusals:
            each(error)
        raise
