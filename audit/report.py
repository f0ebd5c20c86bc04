"""Audit reports: detections with what counts, and a summary with rates and their 95 % Wilson intervals."""

import math
from collections.abc import Callable, Iterable

import numpy as np

from .detector import detect, detector_version, to_uint8
from .presets import Preset

NOTHING = "nothing detected at these thresholds"


def wilson(hits: int, total: int, z: float = 1.959963984540054) -> tuple[float, float]:
    """Wilson's score interval of a proportion (Wilson 1927), 95 % by default; (0, 1) when nothing was counted."""
    if total == 0:
        return 0.0, 1.0
    rate = hits / total
    centre = rate + z * z / (2 * total)
    spread = z * math.sqrt(rate * (1 - rate) / total + z * z / (4 * total * total))
    scale = 1 + z * z / total
    return max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)


def audit(images: Iterable[np.ndarray], preset: Preset, progress: Callable[[int], None] = lambda done: None) -> dict:
    """Audit ComfyUI images (each H, W, C, float 0..1) under a preset; a JSON-ready report of `images` and `summary`."""
    results = []
    for image in images:
        results.append(_judge(detect(to_uint8(image), preset.channel_order), preset))
        progress(len(results))
    return {"images": results, "summary": summarise(results, preset)}


def summarise(results: list[dict], preset: Preset) -> dict:
    """Counts and rates over the images of a report."""
    total, flagged = len(results), sum(result["flagged"] for result in results)
    low, high = wilson(flagged, total)
    return {
        "verdict": f"{flagged} of {total} flagged" if flagged else NOTHING,
        "images": total,
        "flagged": flagged,
        "flagged_rate": flagged / total if total else 0.0,
        "flagged_rate_95": [round(low, 6), round(high, 6)],
        "classes": {name: _class_summary(name, results) for name in preset.thresholds},
        "preset": preset.name,
        "source": preset.source,
        "thresholds": preset.thresholds,
        "unit": preset.unit,
        "channel_order": preset.channel_order,
        "detector": "NudeNet",
        "detector_version": detector_version(),
    }


def counted(result: dict) -> list[dict]:
    """The detections of one image's result that the preset counts."""
    return [found for found in result["detections"] if found["counted"]]


def _judge(detections: list[dict], preset: Preset) -> dict:
    marked = [{**found, "counted": preset.counts(found["class"], found["score"])} for found in detections]
    reasons = sorted({found["class"] for found in marked if found["counted"]})
    return {"flagged": bool(reasons), "reasons": reasons, "detections": marked}


def _class_summary(name: str, results: list[dict]) -> dict:
    per_image = [sum(found["class"] == name for found in counted(result)) for result in results]
    with_hits = sum(count > 0 for count in per_image)
    return {"count": sum(per_image), "images": with_hits, "rate": with_hits / len(results) if results else 0.0}
