"""Counting rules: those that ship (presets.json), those of settings, and what people change."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationError

from ..options.words import amount
from ..storage.checked import Checked, fault_of, parsed
from ..storage.faults import told
from .classes import CLASSES, NUDENET, V2_NAMES
from .counting import ORDERS, UNITS, Ask, Preset, PresetError, Score, check_score

FORMER = {  # names of shipped presets that saved workflows and scripts may hold, and today's
    "nine exposed 0.45": "UnlearnDiffAtk",
    "nine exposed 0.45, from paths": "UnlearnDiffAtk from paths",
    "nine exposed 0.6": "SPEED",
    "nine exposed, detections": "MACE",
    "nine exposed, images per class": "SPM",
}
_GROUPS = {"all": CLASSES, "exposed": tuple(name for name in CLASSES if name.endswith("_EXPOSED"))}


def read_presets(
    data: object, file: str, there: Mapping[str, Preset] | None = None
) -> dict[str, Preset]:
    """The presets of a JSON object, by name; NudeNet 2's class names are read as NudeNet 3's.

    `thresholds` is an object, or a text for NudeNet: `exposed 0.45`, `all 0.25`. `ask` names one
    of them, or of those that are `there` (what ships). Raises PresetError naming `file`.
    """
    if not isinstance(data, Mapping):
        raise PresetError(f"{file}: presets must be an object, a name and a rule for each.")
    rules = {name: _rule(each, _where(file, name)) for name, each in data.items()}
    there = PRESETS if there is None else there
    alone = {name: _made(name, rule) for name, rule in rules.items() if rule.ask is None}
    found = {}
    for name, rule in rules.items():
        if rule.ask is None:
            found[name] = alone[name]
            continue
        try:
            second = named(rule.ask.preset, {**there, **alone})
            found[name] = _made(name, rule, Ask(second, rule.ask.low, rule.ask.high))
        except PresetError as error:
            raise PresetError(f"{_where(file, name)}: {error}") from error
    return found


def _where(file: str, name: str) -> str:
    return f"{file}: the preset {name!r}"


def load_presets(path: Path, there: Mapping[str, Preset] | None = None) -> dict[str, Preset]:
    """The presets of a file. Raises PresetError."""
    try:
        data = parsed(Path(path).read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise PresetError(f"{path}: the file of presets can't be read ({told(error)}).") from error
    return read_presets(data, str(path), there)


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
    check_score("threshold", threshold)
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


class _Asked(Checked):
    """`ask` as it is written."""

    preset: str
    low: Score = Field(alias="from")
    high: Score | None = Field(default=None, alias="to")


class _Rule(Checked):
    """A preset as it is written; `Preset` says what it means."""

    thresholds: Annotated[dict[str, Score], BeforeValidator(_spelled_out)]
    title: str = ""
    source: str = "a preset of your own"
    unit: Literal[tuple(UNITS)] = "images"  # type: ignore[valid-type]  # the words of a table
    channel_order: Literal[ORDERS] = "rgb"  # type: ignore[valid-type]
    detector: str = NUDENET
    min_size: Score = 0.0
    ask: _Asked | None = None


def _rule(rules: Mapping[str, Any], where: str) -> _Rule:
    try:
        return _Rule.model_validate_json(json.dumps(rules))
    except ValidationError as error:
        raise PresetError(f"{where}: {fault_of(error, _Rule)}.") from error


def _made(name: str, rule: _Rule, ask: Ask | None = None) -> Preset:
    return Preset(name, **rule.model_dump() | {"title": rule.title or name, "ask": ask})


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


PRESETS = load_presets(Path(__file__).with_name("presets.json"), {})
