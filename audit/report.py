"""Audit reports: detections with what counts, a summary of rates with 95 % Wilson intervals."""

import itertools
import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..options.words import amount
from .columns import CLASSES, PICTURES, Sums, counted
from .detectors.batches import detections
from .detectors.interface import Detector
from .detectors.registry import find
from .presets import UNITS, Preset
from .stats import kappa

NOTHING = "nothing detected at these thresholds"
UNSEEN = "no picture was looked at"


class Opinion(NamedTuple):
    """What judges pictures: a preset, and the detector that it counts the detections of."""

    preset: Preset
    detector: Detector

    def of(
        self, images: Iterable[np.ndarray], progress: Callable[[int], None] = lambda done: None
    ) -> Iterator[dict[str, Any]]:
        """The result of each image, in order."""
        order = self.preset.channel_order
        for found in detections(self.detector, images, order, progress):
            yield judge(found, self.preset)


def audit(
    images: Iterable[np.ndarray],
    preset: Preset,
    progress: Callable[[int], None] = lambda done: None,
    second: Preset | None = None,
    detector: Detector | None = None,
    *,
    other: Detector | None = None,
) -> dict[str, Any]:
    """Audit ComfyUI images (each H, W, C, float 0..1) under a preset.

    Returns a JSON-ready report of `images` and `summary`. The images given may be of any length and
    are read in small batches. A `second` preset is a second opinion: what its detector found stands
    in each image's `second`, the agreement in the summary; it never changes what is flagged.
    `detector` and `other` take the place of those that the presets name.
    """
    first = Opinion(preset, detector or find(preset.detector))
    opinion = Opinion(second, other or find(second.detector)) if second else None
    if opinion is None:
        results = list(first.of(images, progress))
    else:
        pixels, again = itertools.tee(images)  # neither is ever more than a batch ahead
        results = [
            ours | {"second": theirs}
            for ours, theirs in zip(first.of(pixels, progress), opinion.of(again), strict=True)
        ]
    summary = Tally(preset, opinion).of(results).summary(first.detector)
    return {"images": results, "summary": summary}


def judge(found: Sequence[dict[str, Any]], preset: Preset) -> dict[str, Any]:
    """One image's result: its `detections`, the `reasons`, and whether it is `flagged`.

    Each detection says whether it is `counted`.
    """
    marked = [{**each, "counted": preset.counts(each["class"], each["score"])} for each in found]
    reasons = sorted({each["class"] for each in marked if each["counted"]})
    return {"flagged": bool(reasons), "reasons": reasons, "detections": marked}


def as_text(report: Mapping[str, Any]) -> str:
    """A report as JSON for people: indented, with lists of numbers on one line."""
    text = json.dumps(report, indent=1, ensure_ascii=False)
    # strings first, so that what stands in them is left alone
    found = r'"(?:[^"\\]|\\.)*"|\[[-\d.e,\s]+\]'
    return re.sub(
        found, lambda each: each[0] if each[0][0] == '"' else " ".join(each[0].split()), text
    )


class Tally:
    """Counts over results as they come: millions need no list. `summary` is the report's.

    A rate of no pictures is None.
    """

    def __init__(self, preset: Preset, second: Opinion | None = None):
        self.preset, self.second = preset, second
        self.pictures = Sums(PICTURES)
        self.classes = {name: Sums(CLASSES) for name in preset.thresholds}
        self.agreement: Counter[tuple[bool, bool]] = Counter()  # with the second opinion

    def of(self, results: Iterable[Mapping[str, Any]]) -> "Tally":
        for result in results:
            self.add(result)
        return self

    def add(self, result: Mapping[str, Any]) -> None:
        self.pictures.add(result)
        by_class: defaultdict[str, list[Mapping[str, Any]]] = defaultdict(list)
        for found in counted(result):
            by_class[found["class"]].append(found)
        for name in by_class.keys() & self.classes.keys():
            self.classes[name].add(by_class[name])
        if self.second:
            self.agreement[result["flagged"], result["second"]["flagged"]] += 1

    @property
    def total(self) -> int:
        return self.pictures.sums["images"]

    def counts(self) -> dict[str, Any]:
        """The part of the summary that is counted."""
        classes = {name: each.values(self.total) for name, each in self.classes.items()}
        return {**self.pictures.values(), "classes": classes}

    def summary(self, detector: Detector) -> dict[str, Any]:
        """The report's summary, of what this detector found."""
        preset = self.preset
        return {
            "verdict": self._verdict(),
            **self.counts(),
            "preset": preset.name,
            "source": preset.source,
            "thresholds": preset.thresholds,
            "unit": UNITS[preset.unit],
            "channel_order": preset.channel_order,
            **_named(detector),
            **({"second_opinion": self._agreed(self.second)} if self.second else {}),
        }

    def _verdict(self) -> str:
        sums = self.pictures.sums
        if not sums["flagged"]:
            return NOTHING if self.total else UNSEEN
        images = f"{sums['flagged']} of {self.total} flagged"
        return (
            f"{amount(sums['counted_detections'], 'detection')}; {images}"
            if self.preset.unit == "detections"
            else images
        )

    def _agreed(self, second: Opinion) -> dict[str, Any]:
        counts = [
            self.agreement[pair]
            for pair in ((True, True), (True, False), (False, True), (False, False))
        ]
        agreed = kappa(*counts)
        return {
            "preset": second.preset.name,
            **_named(second.detector),
            **dict(zip(("both", "only_first", "only_second", "neither"), counts, strict=True)),
            "agreement": (counts[0] + counts[3]) / self.total if self.total else None,
            "kappa": None if agreed is None else round(agreed, 6),
        }


def _named(detector: Detector) -> dict[str, Any]:
    return {
        "detector": detector.name,
        "detector_version": detector.version,
        "detector_floor": detector.floor,
        "provider": detector.provider,
    }
