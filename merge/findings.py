"""What locks found while something was sampled, kept for the audits of its pictures.

A finding belongs to the place that sampled: in ComfyUI a node with everything that flows into it.
Two users' graphs are two places, whatever their files are called; the same graph run again is the
same place, so that an audit whose sampler came from the cache still finds what was found.
"""

import contextlib
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Iterator
from contextvars import ContextVar

KEPT = 4096  # places: the oldest are forgotten
FAULTS = "lock_findings"  # what undoes a safety module, or may
# what leaves weights alone and came after the merge: listed, not judged
OTHER_PATCHES = "other_patches"
HELD = "models"  # what the lock of a model that sampled holds, as JSON (about.py)
OUTSIDE = (None, None)

_gathering: ContextVar[list[str] | None] = ContextVar("gathering", default=None)


class Findings:
    """Findings by place. `where` gives (place, run) of what samples now.

    Outside of ComfyUI's prompts there is one place.
    """

    def __init__(self) -> None:
        self.where: Callable[[], tuple[Hashable, Hashable]] = lambda: OUTSIDE
        self.forgot = False  # whether places were: nothing is known then of one that is not here
        self._known: OrderedDict[tuple[Hashable, str], tuple[Hashable, list[str]]] = OrderedDict()

    def note(self, *messages: str, kind: str = FAULTS) -> None:
        """A lock was asked here and found this, or nothing.

        Another run of a place forgets what the last one found.
        """
        place, run = self.where()
        before, found = self._known.pop((place, kind), (run, []))
        found = [] if run is None or before != run else found
        self._known[place, kind] = (run, list(dict.fromkeys([*found, *messages])))
        while len(self._known) > KEPT:
            self._known.popitem(last=False)
            self.forgot = True
        gathered = _gathering.get()
        if gathered is not None and kind == FAULTS:
            gathered += [message for message in messages if message not in gathered]

    def at(self, places: Iterable[Hashable], kind: str = FAULTS) -> list[str]:
        """What was found at these places when each of them sampled last."""
        found = (
            message for place in places for message in self._known.get((place, kind), (None, []))[1]
        )
        return list(dict.fromkeys(found))

    @contextlib.contextmanager
    def gathered(self) -> Iterator[list[str]]:
        """The faults that are found within a block, whatever the place."""
        gathered: list[str] = []
        token = _gathering.set(gathered)
        try:
            yield gathered
        finally:
            _gathering.reset(token)


findings = Findings()  # of this process
