"""Processes of this machine, each in a seat of its own: another's death is nothing to it."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import connection
from typing import Any

from PIL import Image

CONTEXT = multiprocessing.get_context("spawn")


class Process:
    """A seat for one new process, with more in its environment.

    It ignores Ctrl-C, limits no pixels, and ends when this seat is closed or the process that
    opened it ends, however that ends.
    """

    deaths: tuple[type[BaseException], ...] = (BrokenProcessPool,)

    def __init__(self, environment: Mapping[str, str] | None = None):
        theirs, self.line = CONTEXT.Pipe(duplex=False)
        given = theirs, dict(environment or {})
        self.pool = ProcessPoolExecutor(1, CONTEXT, _start, given)
        self.last: Future[Any] = Future()  # of what was submitted

    def submit(self, work: Callable[..., Any], *given: object) -> "Future[Any]":
        try:
            self.last = self.pool.submit(work, *given)
        except (BrokenProcessPool, OSError) as error:  # the latter of a pool that just breaks
            self.last = Future()
            self.last.set_exception(BrokenProcessPool(str(error)))
        return self.last

    def close(self) -> None:
        if self.last.done():  # idle: it leaves as an interpreter does, and nothing behind
            self.pool.shutdown()
        self.line.close()
        self.pool.shutdown(cancel_futures=True)


def _start(line: connection.Connection, environment: Mapping[str, str]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(line,), daemon=True).start()
    os.environ.update(environment)
    Image.MAX_IMAGE_PIXELS = None


def _end_with(line: connection.Connection) -> None:
    """End this process when the other end of the line is closed, or its process has ended."""
    connection.wait([line])
    os._exit(1)
