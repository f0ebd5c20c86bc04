"""An audit of one video: what was found at which time, and small pictures of it, censored."""

from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image

from ..options.table import check, option
from .censor import STOP
from .film_reader import spans
from .films import EVERY, Film
from .opinion import Opinion
from .report import Tally, results_of
from .thumbnails import hidden

SHOWN = 12  # small pictures of a sheet
HIDE = ("blur", "black")


@dataclass(frozen=True)
class Watching:
    """How a video is looked at, and what follows."""

    every: float = option(
        EVERY,
        "Seconds between two looks. The first and the last frame are always looked at. 0 looks at"
        " every frame.",
        low=0.0,
        high=3600.0,
        step=0.1,
    )
    action: str = option(
        "none",
        "What to do with a flagged video. none: nothing; blur, black: hide whole frames, from the"
        " last look that found nothing to the next; stop: end the run, and the error says why.",
        choices=("none", *HIDE, STOP),
    )

    def __post_init__(self) -> None:
        check(self)


@dataclass
class _Kept:
    """At most 2 * SHOWN of any number of small pictures, evenly spread."""

    pictures: list[tuple[dict[str, Any], Image.Image]] = field(default_factory=list)
    step: int = 1
    seen: int = 0

    def add(self, result: dict[str, Any], picture: np.ndarray) -> None:
        if self.seen % self.step == 0:
            self.pictures.append((result, hidden(result, picture)))
            if len(self.pictures) == 2 * SHOWN:
                self.pictures, self.step = self.pictures[::2], 2 * self.step
        self.seen += 1


@dataclass(frozen=True)
class Watched:
    """A report (`images` are the looks, each with `time` and `frame`), and what a sheet shows."""

    report: dict[str, Any]
    shown: list[tuple[dict[str, Any], Image.Image]]


def hiding(looks: Sequence[Mapping[str, Any]]) -> Callable[[float], bool]:
    """Whether a frame at a time is hidden: the look before it or the one after it was flagged.

    Of one that was looked at itself, that look decides.
    """
    flagged: dict[float, bool] = {}
    for each in looks:
        flagged[each["time"]] = flagged.get(each["time"], False) or each["flagged"]
    times = sorted(flagged)

    def hides(time: float) -> bool:
        time = round(time, 3)
        around = {times[max(0, bisect_right(times, time) - 1)]}
        around |= {*times[bisect_left(times, time) :][:1]}
        return any(flagged[each] for each in around)

    return hides


def watch(
    film: Film,
    first: Opinion,
    second: Opinion | None = None,
    progress: Callable[[int], None] = lambda done: None,
    **looks: Any,
) -> Watched:
    """Audit a video under a preset; no more than a batch of frames is held.

    `looks` are the arguments of `Film.looks`. Raises Unreadable for one that is damaged or cut off,
    Unjudged for a frame that can't be judged.
    """
    pending: deque[tuple[float, int, np.ndarray]] = deque()

    def pictures() -> Iterator[np.ndarray]:
        for look in film.looks(**looks):
            pending.append((look.time, look.number, look.picture))
            yield look.picture

    results, flagged, clear = [], _Kept(), _Kept()
    for result in results_of(pictures(), first, second, progress):
        time, number, picture = pending.popleft()
        result = {"time": round(time, 3), "frame": number, **result}
        results.append(result)
        (flagged if result["flagged"] else clear).add(result, picture)
    summary = Tally(first.preset, second, first.asked).of(results).summary(first.detector)
    summary["seconds"] = round(film.seconds, 3)
    summary["flagged_at"] = spans((each["time"], each["flagged"]) for each in results)
    shown = [*_spread(flagged.pictures, SHOWN)]
    shown += _spread(clear.pictures, SHOWN - len(shown))
    return Watched({"images": results, "summary": summary}, shown)


def _spread(found: list[Any], most: int) -> list[Any]:
    places = np.linspace(0, len(found) - 1, min(len(found), most))
    return [found[place] for place in sorted({round(each) for each in places})]
