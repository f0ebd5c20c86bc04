"""What a detector says of pictures: looked at in batches, with their transparency, and checked."""

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np
from PIL import Image

from ...options.choices import chosen
from ...options.errors import PackError
from ...options.words import amount
from ..counting import ORDERS
from .interface import Detector, to_uint8

BATCH_BYTES = 200_000_000  # of pictures: a batch of large ones is cut short
SAME = 0.45  # boxes of a class that overlap by more are one thing, seen on several grounds
GROUNDS = ("white", "black")


class Unjudged(PackError, ValueError):
    """What a detector gave for a picture is no detection; the message is the reason."""


Outcome: TypeAlias = list[dict[str, Any]] | Unjudged  # of one picture


def detections(
    detector: Detector,
    pictures: Iterable[np.ndarray],
    channel_order: str = "rgb",
    progress: Callable[[int], None] = lambda done: None,
) -> Iterator[list[dict[str, Any]]]:
    """Each picture's detections, in order. Raises Unjudged, which names the picture's place."""
    for place, found in enumerate(outcomes(detector, pictures, channel_order, progress)):
        if isinstance(found, Unjudged):
            raise Unjudged(f"picture {place + 1} can't be judged: {found}")
        yield found


def outcomes(
    detector: Detector,
    pictures: Iterable[np.ndarray],
    channel_order: str = "rgb",
    progress: Callable[[int], None] = lambda done: None,
) -> Iterator[Outcome]:
    """Each picture's detections, or why there are none, with no more than a batch, or 200 MB, held.

    Pictures are uint8 (H, W, 3 or 4), RGB(A), or what `to_uint8` takes. One with a picture in its
    transparency is looked at as it is without, on white and on black; a detection that only such a
    ground shows, or shows best, says so in `on`. `bgr` swaps red and blue: what NudeNet 3.4 sees
    when it opens a file itself. `progress` is called with the count after each batch, and may raise
    to stop.
    """
    swapped = chosen(channel_order, ORDERS, "channel_order") == "bgr"
    order = slice(2, None, -1) if swapped else slice(0, 3)
    floats = getattr(detector, "floats", False)
    grounds: deque[tuple[str, ...]] = deque()  # of each picture that is being looked at

    def looks() -> Iterator[np.ndarray]:
        for picture in pictures:
            clear = picture.shape[2:] == (4,)
            if picture.dtype != np.uint8 and (clear or not floats):
                picture = to_uint8(picture)
            grounds.append(grounds_of(picture) if clear else ("",))
            for ground in grounds[-1]:
                seen = on_ground(picture, ground) if clear else picture
                yield np.ascontiguousarray(seen[:, :, order])

    found: deque[Outcome] = deque()
    done = 0
    for batch in _batches(looks(), detector.batch):
        found += _tried(detector, batch)
        while grounds and len(found) >= len(grounds[0]):
            yield _joined({ground: found.popleft() for ground in grounds.popleft()})
            done += 1
        progress(done)


def grounds_of(picture: np.ndarray) -> tuple[str, ...]:
    """On which grounds a picture (H, W, C) is looked at; `""` is: without its transparency.

    An even transparency adds no ground: it shows nothing more.
    """
    uneven = picture.shape[2] == 4 and picture[..., 3].min() != picture[..., 3].max()
    return ("", *GROUNDS) if uneven else ("",)


def on_ground(picture: np.ndarray, ground: str) -> np.ndarray:
    """A picture, uint8 (H, W, 3 or 4), as it is seen on a ground: (H, W, 3)."""
    if not ground:
        return picture[..., :3]
    seen = Image.new("RGB", picture.shape[1::-1], ground)
    seen.paste(Image.fromarray(picture[..., :3]), mask=Image.fromarray(picture[..., 3]))
    return np.asarray(seen)


def _joined(found: dict[str, Outcome]) -> Outcome:
    """What was found on all grounds, each thing once, where it was seen best."""
    if len(found) == 1:
        return found[""]
    seen: list[dict[str, Any]] = []
    for ground, some in found.items():
        if isinstance(some, Unjudged):
            return some
        seen += [each | ({"on": ground} if ground else {}) for each in some]
    kept: list[dict[str, Any]] = []
    for each in sorted(seen, key=lambda one: -one["score"]):
        if not any(
            one["class"] == each["class"] and _overlap(one["box"], each["box"]) > SAME
            for one in kept
        ):
            kept.append(each)
    return kept


def _overlap(one: Sequence[int], two: Sequence[int]) -> float:
    """Intersection over union of boxes [x, y, w, h]; 1 for equal ones."""
    if list(one) == list(two):
        return 1.0
    shared = 1
    for axis in (0, 1):
        end = min(one[axis] + one[axis + 2], two[axis] + two[axis + 2])
        shared *= max(0, end - max(one[axis], two[axis]))
    return shared / max(one[2] * one[3] + two[2] * two[3] - shared, 1)


def _tried(detector: Detector, batch: list[np.ndarray]) -> list[Outcome]:
    """A batch's detections; if it fails, each picture's alone, so that one spoils no other."""
    try:
        return [*_checked(detector, batch)]
    except (ValueError, ArithmeticError) as error:
        if len(batch) == 1:
            return [Unjudged(str(error))]
    return [_tried(detector, [picture])[0] for picture in batch]


def _checked(detector: Detector, batch: list[np.ndarray]) -> list[list[dict[str, Any]]]:
    results, classes = detector.detect(batch), set(detector.classes)
    if len(results) != len(batch):
        found, given = amount(len(results), "result"), amount(len(batch), "picture")
        raise ValueError(f"{detector.name} gave {found} for {given}.")
    for each in (each for found in results for each in found):
        if each["class"] not in classes:
            raise ValueError(
                f"{detector.name} gave the class {each['class']!r}; there are"
                f" {', '.join(detector.classes)}."
            )
        # not (a and b): NaN is neither
        if not (0 <= each["score"] <= 1 + 1e-6 and all(map(math.isfinite, each["box"]))):
            raise ValueError(
                f"{detector.name} gave {each['class']} the score {each['score']:g} in the box"
                f" {each['box']}; scores must lie in 0..1, and boxes be whole pixels."
            )
    return results


def _batches(pictures: Iterable[np.ndarray], size: int) -> Iterator[list[np.ndarray]]:
    batch: list[np.ndarray] = []
    held = 0
    for picture in pictures:
        batch.append(picture)
        held += picture.nbytes
        if len(batch) == size or held > BATCH_BYTES:
            yield batch
            batch, held = [], 0
    if batch:
        yield batch
