"""What all benchmarks share: seconds, memory, turns, processes of their own, rows.

Nothing of ComfyUI is imported here: what is measured in a process of its own begins with this file.
"""

import contextlib
import importlib
import json
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping

import psutil


def several(default: list, **more: object) -> dict:
    """A flag that takes one value or more."""
    return {"nargs": "+", "type": type(default[0]), "default": default, **more}


def head(*titles: str) -> None:
    row(*titles)
    row(*["---"] * len(titles))


def row(*cells: object) -> None:
    """A line of a table, as soon as it is known."""
    print(f"| {' | '.join(map(str, cells))} |", flush=True)


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def median(work: Callable[[], object], turns: int = 1) -> float:
    """The median of its seconds."""
    return statistics.median(seconds(work) for _ in range(turns))


def in_turns(arms: Mapping[object, Callable[[], object]], turns: int) -> dict[object, list]:
    """What each arm gives in every turn; who came last comes first in the next."""
    found: dict[object, list] = {arm: [] for arm in arms}
    for turn in range(turns):
        for arm in arms if turn % 2 else reversed(arms):
            found[arm].append(arms[arm]())
    return found


class Stopwatch:
    """Seconds spent in calls."""

    seconds = 0.0

    def of(self, work: Callable, *arguments, **named):
        start = time.perf_counter()
        result = work(*arguments, **named)
        self.seconds += time.perf_counter() - start
        return result


@contextlib.contextmanager
def watched(owner: object, name: str) -> Iterator[Stopwatch]:
    """A stopwatch on one function while the block runs."""
    watch, plain = Stopwatch(), getattr(owner, name)
    with replaced(owner, name, lambda *given, **named: watch.of(plain, *given, **named)):
        yield watch


@contextlib.contextmanager
def replaced(owner: object, name: str, other: Callable) -> Iterator[None]:
    """Another function in the place of one while the block runs."""
    plain = getattr(owner, name)
    setattr(owner, name, other)
    try:
        yield
    finally:
        setattr(owner, name, plain)


class Peak:
    """The most memory (RSS, bytes) of this process while the block runs, read every 2 ms."""

    def __enter__(self) -> "Peak":
        self.process, self.over = psutil.Process(), threading.Event()
        self.before = self.most = self.process.memory_info().rss
        self.thread = threading.Thread(target=self._watch)
        self.thread.start()
        return self

    def _watch(self) -> None:
        while not self.over.wait(0.002):
            self.most = max(self.most, self.process.memory_info().rss)

    def __exit__(self, *error) -> None:
        self.over.set()
        self.thread.join()

    @property
    def mb(self) -> float:
        """Megabytes above what was there before."""
        return (self.most - self.before) / 2**20


def alone(work: Callable, *arguments: object, frugal: bool = False, comfyui: bool = True) -> object:
    """What a function gives in a process of its own: arguments and result go through JSON.

    `frugal`: freed memory is given back at once, which takes time. With `comfyui` its file may
    import ComfyUI. Raises RuntimeError with the last line that a process which failed wrote.
    """
    asked = json.dumps([work.__module__, work.__name__, arguments, comfyui])
    slow = {"MALLOC_MMAP_THRESHOLD_": str(2**16)} if frugal else {}
    command = [sys.executable, "-m", __name__, asked]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | slow)
    if done.returncode:
        raise RuntimeError(done.stderr.strip().splitlines()[-1])
    return json.loads(done.stdout.strip().splitlines()[-1])


def main() -> None:
    module, function, arguments, comfyui = json.loads(sys.argv[1])
    if comfyui:
        from ...host.comfyui import enter_comfyui

        enter_comfyui()
    print(json.dumps(getattr(importlib.import_module(module), function)(*arguments)))


if __name__ == "__main__":
    main()
