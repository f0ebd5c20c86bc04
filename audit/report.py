"""Audit reports: detections with what counts, a summary of rates with 95 % intervals."""

import itertools
import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from ..options.words import amount
from .columns import CLASSES, PICTURES, Sums, counted, prompt_of
from .counting import UNITS, Preset
from .detectors.interface import Detector
from .detectors.registry import find
from .opinion import Opinion
from .stats import kappa

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
) -> dict[str, Any]:
    """Audit ComfyUI images (each H, W, C, float 0..1) under a preset.

    Returns a JSON-ready report of `images` and `summary`. The images given may be of any length and
    are read in small batches. A `second` preset is a second opinion: what its detector found stands
    in each image's `second`, the agreement in the summary; it never changes what is flagged.
    `detector` and `other` take the place of those that the presets name.
    """
    first = Opinion.on(preset, detector or find(preset.detector), find)
    opinion = Opinion.on(second, other or find(second.detector), find) if second else None
    return judged(images, first, opinion, progress)


def judged(
    images: Iterable[np.ndarray],
    first: Opinion,
    second: Opinion | None = None,
    progress: Callable[[int], None] = lambda done: None,
) -> dict[str, Any]:
    """The same by opinions, which have their detectors."""
    results = list(results_of(images, first, second, progress))
    summary = Tally(first.preset, second, first.asked).of(results).summary(first.detector)
    return {"images": results, "summary": summary}


def results_of(
    images: Iterable[np.ndarray],
    first: Opinion,
    second: Opinion | None = None,
    progress: Callable[[int], None] = lambda done: None,
) -> Iterator[dict[str, Any]]:
    """The result of each image as it comes, with the second opinion's beside it."""
    if second is None:
        yield from first.of(images, progress)
        return
    pixels, again = itertools.tee(images)  # neither is ever more than a batch ahead
    for ours, theirs in zip(first.of(pixels, progress), second.of(again), strict=True):
        yield ours | {"second": theirs}


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

    def __init__(self, preset: Preset, second: Opinion | None = None, asked: Opinion | None = None):
        self.preset, self.second, self.asked = preset, second, asked
        self.pictures = Sums(PICTURES)
        self.classes = {name: Sums(CLASSES) for name in preset.counted_from}
        self.agreement: Counter[tuple[bool, bool]] = Counter()  # with the second opinion
        self.decided: Counter[tuple[bool, bool]] = Counter()  # the same, where it was asked

    def of(self, results: Iterable[Mapping[str, Any]]) -> "Tally":
        for result in results:
            self.add(result)
        return self

    def add(self, result: Mapping[str, Any]) -> None:
        prompt = prompt_of(result)
        self.pictures.add(result, prompt, result["flagged"])
        by_class: defaultdict[str, list[Mapping[str, Any]]] = defaultdict(list)
        for found in counted(result):
            by_class[found["class"]].append(found)
        for name in by_class.keys() & self.classes.keys():
            self.classes[name].add(by_class[name], prompt, True)
        if self.second:
            self.agreement[result["flagged"], result["second"]["flagged"]] += 1
        if "asked" in result:
            self.decided[result["asked"]["first"], result["asked"]["second"]] += 1

    @property
    def total(self) -> int:
        return self.pictures.sums["images"]

    def counts(self) -> dict[str, Any]:
        """The part of the summary that is counted."""
        classes = {name: each.values(self.pictures) for name, each in self.classes.items()}
        return {**self.pictures.values(), "classes": classes}

    def summary(self, detector: Detector) -> dict[str, Any]:
        """The report's summary, of what this detector found."""
        preset = self.preset
        return {
            "verdict": self._verdict(),
            **self.counts(),
            "preset": preset.name,
            "source": preset.source,
            "thresholds": preset.counted_from,
            **({"min_size": preset.min_size} if preset.min_size else {}),
            "unit": UNITS[preset.unit],
            "channel_order": preset.channel_order,
            **_named(detector),
            **({"asked": self._asked(self.asked)} if self.asked else {}),
            **({"second_opinion": _agreed(self.second, self.agreement)} if self.second else {}),
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

    def _asked(self, asked: Opinion) -> dict[str, Any]:
        ask = self.preset.ask
        found = _agreed(asked, self.decided)
        return {"pictures": self.decided.total(), "from": ask and ask.low, **found}


def _agreed(second: Opinion, agreement: Mapping[tuple[bool, bool], int]) -> dict[str, Any]:
    """How far another opinion agrees, by counts of (the first flags, the other flags)."""
    counts = [
        agreement.get(pair, 0)
        for pair in ((True, True), (True, False), (False, True), (False, False))
    ]
    agreed, total = kappa(*counts), sum(counts)
    return {
        "preset": second.preset.name,
        **_named(second.detector),
        **dict(zip(("both", "only_first", "only_second", "neither"), counts, strict=True)),
        "agreement": (counts[0] + counts[3]) / total if total else None,
        "kappa": None if agreed is None else round(agreed, 6),
    }


def _named(detector: Detector) -> dict[str, Any]:
    return {
        "detector": detector.name,
        "detector_version": detector.version,
        "detector_floor": detector.floor,
        "provider": detector.provider,
    }
