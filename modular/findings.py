"""What locks found while something was sampled, kept for the audits of the pictures that came of it.

A finding belongs to the place that sampled: in ComfyUI a node with everything that flows into it. Two users' graphs are two
places, whatever their files are called; the same graph run again is the same place, so that an audit whose sampler came from
the cache still finds what was found.
"""

import contextlib
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Iterator
from contextvars import ContextVar

KEPT = 4096  # places: the oldest are forgotten
OUTSIDE = (None, None)

_gathering: ContextVar[list[str] | None] = ContextVar("gathering", default=None)


class Findings:
    """Findings by place. `where` gives (place, run) of what samples now; outside of ComfyUI's prompts there is one place."""

    def __init__(self):
        self.where: Callable[[], tuple[Hashable, Hashable]] = lambda: OUTSIDE
        self._known: OrderedDict[Hashable, tuple[Hashable, list[str]]] = OrderedDict()

    def note(self, message: str | None) -> None:
        """A lock was asked here and found this, or nothing. Another run of a place forgets what the last one found."""
        place, run = self.where()
        before, found = self._known.pop(place, (run, []))
        found = [] if run is None or before != run else found
        found += [message] if message and message not in found else []
        self._known[place] = (run, found)
        while len(self._known) > KEPT:
            self._known.popitem(last=False)
        gathered = _gathering.get()
        if gathered is not None and message and message not in gathered:
            gathered.append(message)

    def at(self, places: Iterable[Hashable]) -> list[str]:
        """What was found at these places when each of them sampled last."""
        found = (message for place in places for message in self._known.get(place, (None, []))[1])
        return list(dict.fromkeys(found))

    @contextlib.contextmanager
    def gathered(self) -> Iterator[list[str]]:
        """What is found within a block, whatever the place."""
        token = _gathering.set([])
        try:
            yield _gathering.get()
        finally:
            _gathering.reset(token)


findings = Findings()  # of this process
