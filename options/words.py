"""Counts and times as people say them."""

import time
from collections.abc import Sequence

from .language import say_many


def amount(count: int, noun: str, many: str = "") -> str:
    """How many of something: `1 picture`, `2 pictures`, and `2 classes` where that is `many`."""
    return say_many(f"{{count}} {noun}", f"{{count}} {many or f'{noun}s'}", count)


def series(names: Sequence[str]) -> str:
    """Names as a sentence has them: `one`, `one and two`, `one, two and three`."""
    return " and ".join(each for each in (", ".join(names[:-1]), *names[-1:]) if each)


def span(seconds: float) -> str:
    """A time: `80 s`, `12 min`, `3 h 5 min`."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


class Pace:
    """How long a run still takes, at the pace since it was first asked: what came before is free.

    `left(done)` is empty as long as nothing was done, and at the end.
    """

    def __init__(self, total: int):
        self.total = total
        self.first: tuple[float, int] | None = None  # when, and how much was done

    def left(self, done: int) -> str:
        now = time.monotonic()
        start, before = self.first = self.first or (now, done)
        if not before < done < self.total:
            return ""
        return f", {span((now - start) / (done - before) * (self.total - done))} left"
