"""What judges pictures: a preset with its detector, and with the one that it may ask."""

import hashlib
import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from .counting import Preset
from .detectors.batches import Outcome, Unjudged, outcomes
from .detectors.interface import Detector, identity_of

Found = Sequence[Mapping[str, Any]]


class Opinion(NamedTuple):
    """A preset, the detector whose detections it counts, and the opinion that it asks."""

    preset: Preset
    detector: Detector
    asked: "Opinion | None" = None

    @classmethod
    def on(cls, preset: Preset, detector: Detector, find: Callable[[str], Detector]) -> "Opinion":
        """A preset on a detector; `find` gives the one that it asks.

        Raises DetectorError, DetectorMissing: what can't be asked must not read as nothing found.
        """
        if preset.ask is None:
            return cls(preset, detector)
        second = preset.ask.preset
        return cls(preset, detector, cls(second, find(second.detector)))

    @property
    def sha256(self) -> str:
        """The digest of what the detectors' results depend on."""
        identities = [identity_of(each) for each in self.detectors]
        return hashlib.sha256(json.dumps(identities, sort_keys=True).encode()).hexdigest()

    @property
    def detectors(self) -> tuple[Detector, ...]:
        return (self.detector, *(self.asked.detectors if self.asked else ()))

    def of(
        self, images: Iterable[np.ndarray], progress: Callable[[int], None] = lambda done: None
    ) -> Iterator[dict[str, Any]]:
        """The result of each image, in order. Raises Unjudged, which names the image's place."""
        for place, result in enumerate(self.results(images, progress)):
            if isinstance(result, Unjudged):
                raise Unjudged(f"picture {place + 1} can't be judged: {result}")
            yield result

    def results(
        self, images: Iterable[np.ndarray], progress: Callable[[int], None] = lambda done: None
    ) -> Iterator[dict[str, Any] | Unjudged]:
        """The result of each image, or why there is none, with no more than a batch held."""
        held: deque[np.ndarray] = deque()

        def looked_at() -> Iterator[np.ndarray]:
            for image in images:
                held.append(image)
                yield image

        order = self.preset.channel_order
        for found in outcomes(self.detector, looked_at(), order, progress):
            yield self._judged(found, held.popleft())

    def _judged(self, found: Outcome, image: np.ndarray) -> dict[str, Any] | Unjudged:
        if isinstance(found, Unjudged):
            return found
        found = sized(found, image.shape)
        if self.asked is None or not self.preset.is_unsure(found):
            return judge(found, self.preset)
        (second,) = self.asked.results([image])
        if isinstance(second, Unjudged):
            return second
        by = self.asked.detector.name
        own = judge(found, self.preset)["flagged"]
        overruled = [{**each, "unsure": True} for each in found]
        told = [
            {**each, "by": by, **({} if each["counted"] else {"unsure": True})}
            for each in second["detections"]
        ]
        asked = {"pictures": 1, "first": own, "second": second["flagged"]}
        return judge([*overruled, *told], self.preset) | {"asked": asked}


def sized(found: Found, shape: Sequence[int]) -> list[dict[str, Any]]:
    """Detections with their `size` in a picture of (height, width, ...): the larger of two shares.

    They are the box's width by the picture's width, and its height by the picture's height.
    """
    height, width = shape[:2]
    return [
        {**each, "size": round(min(1.0, max(each["box"][2] / width, each["box"][3] / height)), 4)}
        for each in found
    ]


def judge(found: Found, preset: Preset) -> dict[str, Any]:
    """One image's result: its `detections`, the `reasons`, and whether it is `flagged`.

    Each detection says whether it is `counted`. One that is marked `unsure` is not: another
    detector decided, or it is the other's and did not decide.
    """
    marked = [
        {**each, "counted": not each.get("unsure") and _counts(each, preset)} for each in found
    ]
    reasons = sorted({each["class"] for each in marked if each["counted"]})
    return {"flagged": bool(reasons), "reasons": reasons, "detections": marked}


def _counts(found: Mapping[str, Any], preset: Preset) -> bool:
    # of a row that an earlier version wrote nobody knows the size: it counts
    return preset.counts(found["class"], found["score"], found.get("size", 1.0))


def together(results: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The result of several looks at one file, or at one film."""
    asked = [each["asked"] for each in results if "asked" in each]
    total = {
        "pictures": len(asked),
        "first": any(each["first"] for each in asked),
        "second": any(each["second"] for each in asked),
    }
    return {
        "flagged": any(each["flagged"] for each in results),
        "reasons": sorted({reason for each in results for reason in each["reasons"]}),
        "detections": [found for each in results for found in each["detections"]],
        **({"asked": total} if asked else {}),
    }
