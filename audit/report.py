"""Audit reports: detections with what counts, a summary of rates with 95 % Wilson intervals."""

import itertools
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from .detectors.batches import detections
from .detectors.interface import Detector
from .detectors.registry import find
from .presets import UNITS, Preset
from .stats import kappa, wilson

NOTHING = "nothing detected at these thresholds"
UNSEEN = "no picture was looked at"


def audit(
    images: Iterable[np.ndarray],
    preset: Preset,
    progress: Callable[[int], None] = lambda done: None,
    second: Preset | None = None,
    detector: Detector | None = None,
    *,
    other: Detector | None = None,
) -> dict:
    """Audit ComfyUI images (each H, W, C, float 0..1) under a preset.

    Returns a JSON-ready report of `images` and `summary`. The images given may be of any length and
    are read in small batches. A `second` preset is a second opinion: what its detector found stands
    in each image's `second`, the agreement in the summary; it never changes what is flagged.
    `detector` and `other` take the place of those that the presets name.
    """
    first = detector or find(preset.detector)
    other = other or find(second.detector) if second else None
    if second is None:
        results = [
            judge(found, preset)
            for found in detections(first, images, preset.channel_order, progress)
        ]
    else:
        pixels, again = itertools.tee(images)  # neither is ever more than a batch ahead
        ours, theirs = (
            detections(first, pixels, preset.channel_order, progress),
            detections(other, again, second.channel_order),
        )
        results = [
            judge(found, preset) | {"second": judge(opinion, second)}
            for found, opinion in zip(ours, theirs, strict=True)
        ]
    return {"images": results, "summary": Tally(preset, first, second, other).of(results).summary()}


def judge(found: Sequence[dict], preset: Preset) -> dict:
    """One image's result: its `detections`, the `reasons`, and whether it is `flagged`.

    Each detection says whether it is `counted`.
    """
    marked = [{**each, "counted": preset.counts(each["class"], each["score"])} for each in found]
    reasons = sorted({each["class"] for each in marked if each["counted"]})
    return {"flagged": bool(reasons), "reasons": reasons, "detections": marked}


def as_text(report: Mapping) -> str:
    """A report as JSON for people: indented, with lists of numbers on one line."""
    text = json.dumps(report, indent=1, ensure_ascii=False)
    # strings first, so that what stands in them is left alone
    found = r'"(?:[^"\\]|\\.)*"|\[[-\d.e,\s]+\]'
    return re.sub(
        found, lambda each: each[0] if each[0][0] == '"' else " ".join(each[0].split()), text
    )


def counted(result: dict) -> list[dict]:
    """The detections of one image's result that the preset counts."""
    return [found for found in result["detections"] if found["counted"]]


class Tally:
    """Counts over results as they come: millions need no list. `summary` is the report's.

    A rate of no pictures is None.
    """

    def __init__(
        self,
        preset: Preset,
        detector: Detector | None = None,
        second: Preset | None = None,
        other: Detector | None = None,
    ):
        self.preset, self.detector, self.second, self.other = preset, detector, second, other
        self.total = self.flagged = 0
        self.detections, self.images, self.agreement = Counter(), Counter(), Counter()

    def of(self, results: Iterable[dict]) -> "Tally":
        for result in results:
            self.add(result)
        return self

    def add(self, result: dict) -> None:
        self.total += 1
        self.flagged += result["flagged"]
        classes = Counter(found["class"] for found in counted(result))
        self.detections.update(classes)
        self.images.update(classes.keys())
        if self.second:
            self.agreement[result["flagged"], result["second"]["flagged"]] += 1

    def counts(self) -> dict:
        """The part of the summary that is counted."""
        total = self.total
        low, high = wilson(self.flagged, total)
        return {
            "images": total,
            "flagged": self.flagged,
            "flagged_rate": self.flagged / total if total else None,
            "flagged_rate_95": [round(low, 6), round(high, 6)],
            "counted_detections": self.detections.total(),
            "classes": {name: self._class(name) for name in self.preset.thresholds},
        }

    def summary(self) -> dict:
        preset = self.preset
        return {
            "verdict": self._verdict(),
            **self.counts(),
            "preset": preset.name,
            "source": preset.source,
            "thresholds": preset.thresholds,
            "unit": UNITS[preset.unit],
            "channel_order": preset.channel_order,
            **_named(self.detector),
            **({"second_opinion": self._opinion()} if self.second else {}),
        }

    def _verdict(self) -> str:
        if not self.flagged:
            return NOTHING if self.total else UNSEEN
        images = f"{self.flagged} of {self.total} flagged"
        return (
            f"{self.detections.total()} detections; {images}"
            if self.preset.unit == "detections"
            else images
        )

    def _class(self, name: str) -> dict:
        images, total = self.images[name], self.total
        low, high = wilson(images, total)
        return {
            "count": self.detections[name],
            "images": images,
            "rate": images / total if total else None,
            "rate_95": [round(low, 6), round(high, 6)],
        }

    def _opinion(self) -> dict:
        counts = [
            self.agreement[pair]
            for pair in ((True, True), (True, False), (False, True), (False, False))
        ]
        agreed = kappa(*counts)
        return {
            "preset": self.second.name,
            **_named(self.other),
            **dict(zip(("both", "only_first", "only_second", "neither"), counts, strict=True)),
            "agreement": (counts[0] + counts[3]) / self.total if self.total else None,
            "kappa": None if agreed is None else round(agreed, 6),
        }


def _named(detector: Detector) -> dict:
    return {
        "detector": detector.name,
        "detector_version": detector.version,
        "detector_floor": detector.floor,
        "provider": detector.provider,
    }
