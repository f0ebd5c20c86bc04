"""Work shared out over processes, here or elsewhere: one that dies takes nothing along."""

import functools
import itertools
from collections import Counter, deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from typing import Any, Generic, Protocol, TypeVar

from ..options.errors import PackError
from ..storage.differing import difference

AHEAD = 2  # tasks that a process has at least, while there are more: it never waits for one
TRIES = 3  # a process that dies is begun again, and a task that one died of is tried, so often

Task = TypeVar("Task", bound=Hashable)
Result = TypeVar("Result")


class NoStart(PackError, RuntimeError):
    """Processes die before they are given anything."""


class Differs(PackError, RuntimeError):
    """A process does not hold what the others do."""


class Seat(Protocol):
    """One process, which does what is submitted in that order."""

    deaths: tuple[type[BaseException], ...]  # what its futures raise when it died

    def submit(self, work: Callable[..., Any], *given: object) -> "Future[Any]": ...

    def close(self) -> None:
        """End the process at once, whatever it does."""


class Crew(Generic[Task, Result]):
    """Processes that begin alike, and then do tasks: `count` at most, as many as there is work for.

    `open_seat(number)` starts one. It first calls `begin`, whose result says what it holds: of all
    of them, and of those that replace one that died, it must be the same. Then it calls `do` with
    its tasks. Both are pickled. Whoever leaves the crew ends its processes.
    """

    def __init__(
        self,
        open_seat: Callable[[int], Seat],
        count: int,
        begin: Callable[[], Any],
        do: Callable[[Task], Result],
        *,
        parts: Callable[[Task], Sequence[Task]] = lambda task: (),
    ):
        self.open_seat, self.count = open_seat, count
        self.begin, self.do, self.parts = begin, do, parts
        self.said: list[Any] = []  # by the first that began
        self.todo: deque[Sequence[Task]] = deque()  # bundles, those before the caller's own
        self.died: Counter[Task] = Counter()
        self.places: list[_Place] = []

    def __enter__(self) -> "Crew[Task, Result]":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        for place in self.places:
            place.seat.close()

    def begun(self, count: int = 1) -> Any:
        """Start so many; what the first that has begun holds. Raises NoStart, and as `begin`."""
        self._start(count)
        while not self.said:
            self._wait()
            for place in self.places:
                self._greet(place)
        return self.said[0]

    def done(self, bundles: Iterable[Sequence[Task]]) -> Iterator[tuple[Task, Result | None]]:
        """Each task with its result, as they are done: None when processes died of it.

        The tasks of a bundle go to one process. Another bundle is asked for when a process has
        less than AHEAD tasks. When one dies, the first of its tasks is to blame: it is tried in
        `parts`, if it has any, or TRIES times, and the others are done as if nothing were. Raises
        Differs, NoStart, and what `begin` or `do` raise.
        """
        left = iter(bundles)
        while True:
            for place in self.places:
                while place.is_ready() and len(place.tasks) < AHEAD and self._has(left):
                    place.give(self.do, self.todo.popleft())
            if not any(place.tasks for place in self.places) and not self._has(left):
                return
            while len(self.places) < self.count and self._has(left, 1 + self._beginning()):
                self._start(1)
            self._wait()
            for place in self.places:
                self._greet(place)
                yield from self._collected(place)

    def _start(self, count: int) -> None:
        for number in range(len(self.places), min(len(self.places) + count, self.count)):
            self.places.append(_Place(self.open_seat, number, self.begin))

    def _beginning(self) -> int:
        return sum(not place.is_ready() for place in self.places)

    def _has(self, left: Iterator[Sequence[Task]], count: int = 1) -> bool:
        """Whether there are so many bundles to give."""
        self.todo.extend(itertools.islice(left, max(0, count - len(self.todo))))
        return len(self.todo) >= count

    def _wait(self) -> None:
        wait([each for place in self.places for each in place.awaited()], None, FIRST_COMPLETED)

    def _greet(self, place: "_Place") -> None:
        """Take in a process that has begun, and begin again for one that died as it did."""
        if place.beginning is None or not place.beginning.done():
            return
        try:
            said = place.beginning.result()
        except place.seat.deaths as error:
            place.failed += 1
            if place.failed == TRIES:
                raise NoStart(
                    f"No worker can run here: one died {TRIES} times before it was given anything,"
                    " with the message above, if there is one. Finished rows are kept, and the same"
                    " command continues from there."
                ) from error
            place.sit(self.begin)
            return
        place.beginning, place.failed = None, 0
        self.said = self.said or [said]
        if said != self.said[0]:
            raise Differs(
                "Workers must hold the same, and one holds another"
                f" {difference(self.said[0], said, {}, {})}. Files were changed since the first"
                " began, or are not the same on all machines. Finished rows are kept."
            )

    def _collected(self, place: "_Place") -> Iterator[tuple[Task, Result | None]]:
        """What a process has done, in its order; what it died of, if that is given up."""
        for future, task in list(place.tasks.items()):
            if not future.done():
                return
            try:
                result = future.result()
            except place.seat.deaths:
                yield from self._mourned(place)
                return
            del place.tasks[future]
            yield task, result

    def _mourned(self, place: "_Place") -> Iterator[tuple[Task, None]]:
        """Begin again in the place of a process that died, and try its tasks again."""
        blamed, *others = place.tasks.values()
        place.sit(self.begin)
        if others:
            self.todo.appendleft(others)
        self.died[blamed] += 1
        parts = self.parts(blamed)
        if parts:
            self.todo.extendleft((each,) for each in reversed(parts))
        elif self.died[blamed] < TRIES:
            self.todo.appendleft((blamed,))
        else:
            yield blamed, None


class _Place:
    """A seat that is taken again when its process died, and what is asked of the one there."""

    def __init__(self, open_seat: Callable[[int], Seat], number: int, begin: Callable[[], Any]):
        self.open, self.failed = functools.partial(open_seat, number), 0
        self._ask(self.open(), begin)

    def sit(self, begin: Callable[[], Any]) -> None:
        """Start a process here, after the one before."""
        self.seat.close()
        self._ask(self.open(), begin)

    def _ask(self, seat: Seat, begin: Callable[[], Any]) -> None:
        self.seat = seat
        self.tasks: dict[Future[Any], Any] = {}  # in the order that they are done in
        self.beginning: Future[Any] | None = seat.submit(begin)

    def is_ready(self) -> bool:
        return self.beginning is None

    def awaited(self) -> list["Future[Any]"]:
        return [self.beginning] if self.beginning else list(self.tasks)

    def give(self, do: Callable[[Any], Any], bundle: Sequence[Any]) -> None:
        self.tasks |= {self.seat.submit(do, task): task for task in bundle}
