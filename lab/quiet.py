"""Runs whose bars nobody looks at."""

import contextlib
import os
from collections.abc import Iterator


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Nothing on standard output."""
    with open(os.devnull, "w") as silent, contextlib.redirect_stdout(silent):  # noqa: PTH123
        yield
