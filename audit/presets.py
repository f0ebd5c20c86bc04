"""Counting rules: which NudeNet classes count, from which score, in which channel order. The data is presets.json."""

import json
import math
from dataclasses import dataclass, replace
from pathlib import Path

# The classes of NudeNet 3.4, in the order of its network's outputs.
CLASSES = (
    "FEMALE_GENITALIA_COVERED",
    "FACE_FEMALE",
    "BUTTOCKS_EXPOSED",
    "FEMALE_BREAST_EXPOSED",
    "FEMALE_GENITALIA_EXPOSED",
    "MALE_BREAST_EXPOSED",
    "ANUS_EXPOSED",
    "FEET_EXPOSED",
    "BELLY_COVERED",
    "FEET_COVERED",
    "ARMPITS_COVERED",
    "ARMPITS_EXPOSED",
    "FACE_MALE",
    "BELLY_EXPOSED",
    "MALE_GENITALIA_EXPOSED",
    "ANUS_COVERED",
    "FEMALE_BREAST_COVERED",
    "BUTTOCKS_COVERED",
)
_GROUPS = {"all": CLASSES, "exposed": tuple(name for name in CLASSES if name.endswith("_EXPOSED"))}


@dataclass(frozen=True)
class Preset:
    """One counting rule; `thresholds` maps each counted class to the score from which it counts."""

    name: str
    title: str
    source: str
    unit: str
    channel_order: str
    thresholds: dict[str, float]

    def counts(self, detected_class: str, score: float) -> bool:
        return detected_class in self.thresholds and score >= self.thresholds[detected_class]


def _read() -> dict[str, Preset]:
    data = json.loads(Path(__file__).with_name("presets.json").read_text(encoding="utf-8"))
    for rules in data.values():
        if isinstance(rules["thresholds"], str):
            group, threshold = rules["thresholds"].split()
            rules["thresholds"] = dict.fromkeys(_GROUPS[group], float(threshold))
    return {name: Preset(name, **rules) for name, rules in data.items()}


PRESETS = _read()


def choose(name: str, threshold: float = 0.0, classes: str = "") -> Preset:
    """The preset `name`, with another threshold for all its classes (0 keeps its own) or other classes.

    `classes` is a comma-separated list of NudeNet classes, each with its own threshold if given as `CLASS=0.6`.
    Raises ValueError for unknown names and for thresholds outside 0..1.
    """
    if name not in PRESETS:
        raise ValueError(f"There is no audit preset {name!r}; there are {', '.join(PRESETS)}.")
    preset = PRESETS[name]
    if classes.strip():
        fallback = threshold or min(preset.thresholds.values())
        preset = replace(preset, thresholds=dict(_one_class(item, fallback) for item in classes.split(",") if item.strip()))
    elif threshold:
        preset = replace(preset, thresholds=dict.fromkeys(preset.thresholds, threshold))
    for label, value in [("threshold", threshold), *preset.thresholds.items()]:
        if not (math.isfinite(value) and 0.0 <= value <= 1.0):
            raise ValueError(f"The threshold of {label} is {value}; it must lie between 0 and 1.")
    return preset


def _one_class(item: str, fallback: float) -> tuple[str, float]:
    name, _, value = (part.strip() for part in item.partition("="))
    if name.upper() not in CLASSES:
        raise ValueError(f"NudeNet has no class {name!r}; it has {', '.join(CLASSES)}.")
    try:
        return name.upper(), float(value) if value else fallback
    except ValueError as error:
        raise ValueError(f"The threshold of {name} is {value!r}; it must be a number between 0 and 1.") from error
