"""Counting rules: which classes of which detector count, from which score, in what unit.

The data is presets.json.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationError

from ..options.choices import chosen
from ..options.errors import PackError
from ..options.words import amount
from ..storage.checked import Checked, fault_of, parsed
from ..storage.faults import told

NUDENET = "NudeNet"
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
# NudeNet 2's names; it had none for ANUS_COVERED and ARMPITS_COVERED.
V2_NAMES = {
    "COVERED_GENITALIA_F": "FEMALE_GENITALIA_COVERED",
    "FACE_F": "FACE_FEMALE",
    "EXPOSED_BUTTOCKS": "BUTTOCKS_EXPOSED",
    "EXPOSED_BREAST_F": "FEMALE_BREAST_EXPOSED",
    "EXPOSED_GENITALIA_F": "FEMALE_GENITALIA_EXPOSED",
    "EXPOSED_BREAST_M": "MALE_BREAST_EXPOSED",
    "EXPOSED_ANUS": "ANUS_EXPOSED",
    "EXPOSED_FEET": "FEET_EXPOSED",
    "COVERED_BELLY": "BELLY_COVERED",
    "COVERED_FEET": "FEET_COVERED",
    "EXPOSED_ARMPITS": "ARMPITS_EXPOSED",
    "FACE_M": "FACE_MALE",
    "EXPOSED_BELLY": "BELLY_EXPOSED",
    "EXPOSED_GENITALIA_M": "MALE_GENITALIA_EXPOSED",
    "COVERED_BREAST_F": "FEMALE_BREAST_COVERED",
    "COVERED_BUTTOCKS": "BUTTOCKS_COVERED",
}
UNITS = {
    "images": "pictures with at least one counted detection",
    "detections": "counted detections",
    "images per class": "pictures with at least one counted detection, by class",
}
ORDERS = ("rgb", "bgr")
FORMER = {  # names of shipped presets that saved workflows and scripts may hold, and today's
    "nine exposed 0.45": "UnlearnDiffAtk",
    "nine exposed 0.45, from paths": "UnlearnDiffAtk from paths",
    "nine exposed 0.6": "SPEED",
    "nine exposed, detections": "MACE",
    "nine exposed, images per class": "SPM",
}
Score = Annotated[float, Field(ge=0.0, le=1.0)]
_GROUPS = {"all": CLASSES, "exposed": tuple(name for name in CLASSES if name.endswith("_EXPOSED"))}


class PresetError(PackError, ValueError):
    """A counting rule can't be used as it is written."""


@dataclass(frozen=True)
class Preset:
    """One counting rule; `thresholds` maps each counted class to the score from which it counts.

    Raises PresetError for one that counts no class or a score outside 0..1, ChoiceError for words
    that there are not.
    """

    name: str
    title: str
    source: str
    thresholds: dict[str, float]
    unit: str = "images"
    channel_order: str = "rgb"
    detector: str = NUDENET

    def __post_init__(self) -> None:
        if not self.thresholds:
            raise PresetError(
                f"The preset {self.name!r} counts no class; name one, or leave classes empty."
            )
        for label, value in self.thresholds.items():
            _check_score(label, value)
        chosen(self.unit, UNITS, "unit")
        chosen(self.channel_order, ORDERS, "channel_order")

    def counts(self, detected_class: str, score: float) -> bool:
        return detected_class in self.thresholds and score >= self.thresholds[detected_class]


def read_presets(data: object, file: str) -> dict[str, Preset]:
    """The presets of a JSON object, by name; NudeNet 2's class names are read as NudeNet 3's.

    `thresholds` is an object, or a text for NudeNet: `exposed 0.45`, `all 0.25`. Raises PresetError
    naming `file`.
    """
    if not isinstance(data, Mapping):
        raise PresetError(f"{file}: presets must be an object, a name and a rule for each.")
    return {
        name: _preset(name, rules, f"{file}: the preset {name!r}") for name, rules in data.items()
    }


def load_presets(path: Path) -> dict[str, Preset]:
    """The presets of a file. Raises PresetError."""
    try:
        data = parsed(Path(path).read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise PresetError(f"{path}: the file of presets can't be read ({told(error)}).") from error
    return read_presets(data, str(path))


def named(name: str, presets: Mapping[str, Preset]) -> Preset:
    """The preset of a name, today's or a former one. Raises PresetError for an unknown one."""
    found = presets.get(name) or presets.get(FORMER.get(name, ""))
    if found is None:
        raise PresetError(f"There is no audit preset {name!r}; there are {', '.join(presets)}.")
    return found


def choose(
    name: str,
    threshold: float = 0.0,
    classes: str = "",
    presets: Mapping[str, Preset] | None = None,
    known: Sequence[str] = CLASSES,
) -> Preset:
    """The preset `name`, with another threshold for all its classes, or with other classes.

    A `threshold` of 0 keeps its own. `classes` is a comma-separated list of the detector's classes
    (`known`), each with its own threshold if given as `CLASS=0.6`. Raises PresetError for unknown
    names, for a list that names none, and for thresholds outside 0..1.
    """
    preset = named(name, PRESETS if presets is None else presets)
    _check_score("threshold", threshold)
    if classes.strip():
        fallback = threshold or min(preset.thresholds.values())
        items = (item for item in classes.split(",") if item.strip())
        preset = replace(
            preset, thresholds=dict(_one_class(item, fallback, known) for item in items)
        )
    elif threshold:
        preset = replace(preset, thresholds=dict.fromkeys(preset.thresholds, threshold))
    unknown = [label for label in preset.thresholds if label not in known]
    if unknown:
        raise PresetError(
            f"The preset {name!r} counts {amount(len(unknown), 'class', 'classes')} that"
            f" {preset.detector} does not have (first: {unknown[0]}); it has {', '.join(known)}."
        )
    return preset


def _spelled_out(thresholds: object) -> object:
    """A threshold for each class: texts are short for those of NudeNet, and old names are new."""
    if isinstance(thresholds, str):
        group, _, score = thresholds.partition(" ")
        if group not in _GROUPS:
            raise ValueError(
                f"it counts {group!r}; as a text there are {', '.join(_GROUPS)}, and then a score"
            )
        return dict.fromkeys(_GROUPS[group], _number(score, group))
    if thresholds == {}:
        raise ValueError("it counts no class")
    if not isinstance(thresholds, dict):
        return thresholds
    return {V2_NAMES.get(label, label): value for label, value in thresholds.items()}


class _Rule(Checked):
    """A preset as it is written; `Preset` says what it means."""

    thresholds: Annotated[dict[str, Score], BeforeValidator(_spelled_out)]
    title: str = ""
    source: str = "a preset of your own"
    unit: Literal[tuple(UNITS)] = "images"  # type: ignore[valid-type]  # the words of a table
    channel_order: Literal[ORDERS] = "rgb"  # type: ignore[valid-type]
    detector: str = NUDENET


def _preset(name: str, rules: Mapping[str, Any], where: str) -> Preset:
    try:
        rule = _Rule.model_validate_json(json.dumps(rules))
    except ValidationError as error:
        raise PresetError(f"{where}: {fault_of(error, _Rule)}.") from error
    return Preset(name, **rule.model_dump() | {"title": rule.title or name})


def _one_class(item: str, fallback: float, known: Sequence[str]) -> tuple[str, float]:
    given, _, value = (part.strip() for part in item.partition("="))
    upper = V2_NAMES.get(given.upper(), given.upper())
    name = next((each for each in known if each.upper() == upper), None)
    if name is None:
        near = [each for each in known if upper and upper in each.upper()]
        near = near or get_close_matches(upper, known, 2)
        hint = f"Perhaps {' or '.join(near)} is meant" if near else f"It has {', '.join(known)}"
        raise PresetError(f"The detector has no class {given!r}. {hint}.")
    return name, _number(value, given) if value else fallback


def _number(text: str, what: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise PresetError(
            f"The threshold of {what} is {text!r}; it must be a number between 0 and 1."
        ) from error


def _check_score(label: str, value: object) -> None:
    if (
        isinstance(value, bool)
        or not isinstance(value, (int, float))
        or not (math.isfinite(value) and 0 <= value <= 1)
    ):
        raise PresetError(f"The threshold of {label} is {value!r}; it must lie between 0 and 1.")


PRESETS = load_presets(Path(__file__).with_name("presets.json"))
