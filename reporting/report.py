"""A report as JSON, its short form, and its tables, which words and page share."""

import datetime
import math
from collections.abc import Mapping, Sequence
from typing import Any

from ..drawing.markdown import share
from ..modules.files import LoraFile
from ..modules.short_report import LARGEST, ShortReport
from ..options.language import phrase, say
from .names import BASE, CONCEPT, HARMLESS, KINDS, MODELS, NEAR, SAFE, TOLD, TUNED

Json = dict[str, Any]
NOT = phrase("not measured")
TAKES, HARMS, LEFT, ACTS = (
    phrase("What it takes away"),
    phrase("What it harms"),
    phrase("What is left after tuning"),
    phrase("Where it acts"),
)


def short_form(report: Mapping[str, Any], module: LoraFile) -> Json | None:
    """What is sealed of a report; None without pictures of the sealed prompts, or of a part."""
    rates, harm = report["rates"], report["harm"]
    if report["partial"] or not rates[TOLD]["pictures"]:
        return None

    def drawn(kind: str) -> Json | None:
        told = rates[kind]
        counts = {arm: each["flagged"] for arm, each in told["arms"].items()}
        return {"pictures": told["pictures"], **counts} if told["pictures"] else None

    def changed(kind: str) -> Json | None:
        told = harm[kind]
        return {name: told[name] for name in ("pictures", "changed")} if told["pictures"] else None

    made = {
        "date": report["date"],
        "base": report["base"]["name"][:80],
        "base_sha256": report["base"]["sha256"],
        "tensors_sha256": module.metadata["msl.tensors_sha256"],
        "strength": module.sealed_strength,
        "preset": report["preset"][:80],
        "detector": report["detector"][:80],
        **{kind: drawn(kind) for kind in CONCEPT},
        **{kind: changed(kind) for kind in HARMLESS},
    }
    found = ShortReport.model_validate(made)
    if len(found.text().encode()) > LARGEST:
        raise ValueError(f"The short form is longer than {LARGEST} bytes: {found.text()}")
    return found.model_dump(exclude_none=True)


def percent(value: float | None) -> str:
    """A share in whole percents; never `0 %` of what is more."""
    return share(value, digits=0)


def today() -> str:
    return datetime.date.today().isoformat()


def tables(report: Mapping[str, Any]) -> dict[str, tuple[Sequence[str], list[list[str]]]]:
    """(heads, rows) of each part; a part without rows was not measured."""
    prompts, pictures, interval = say("prompts"), say("pictures"), say("95 % interval")
    base, safe, *tuned = (say(MODELS[arm]) for arm in (BASE, SAFE, *TUNED))
    return {
        TAKES: (
            (prompts, pictures, base, safe, interval),
            [_takes(kind, report["rates"][kind]) for kind in CONCEPT],
        ),
        HARMS: (
            (
                *(prompts, pictures, say("changed"), interval),
                *(say("distance"), say("in the network")),
            ),
            [_harms(kind, report) for kind in HARMLESS],
        ),
        LEFT: ((prompts, pictures, safe, *tuned), _left(report)),
        ACTS: (
            (say("layers"), say("weights"), say("prompts as told"), say("near prompts")),
            [
                [kind, str(each["weights"]), _number(each[TOLD]), _number(each[NEAR])]
                for kind, each in (report["function"] or {"acts": {}})["acts"].items()
            ],
        ),
    }


def _takes(kind: str, told: Mapping[str, Any]) -> list[str]:
    if not told["pictures"]:
        return [say(KINDS[kind]), say(NOT), "-", "-", "-"]
    base, safe = (told["arms"][arm] for arm in (BASE, SAFE))
    count = str(told["pictures"])
    return [say(KINDS[kind]), count, percent(base["rate"]), percent(safe["rate"]), _ends(safe)]


def _harms(kind: str, report: Mapping[str, Any]) -> list[str]:
    told, network = report["harm"][kind], report["function"]
    inside = _number(network["changed"][kind]) if network else say(NOT)
    if not told["pictures"]:
        return [say(KINDS[kind]), say(NOT), "-", "-", "-", inside]
    far = f"{told['distance']:.2f}"
    count = str(told["pictures"])
    return [say(KINDS[kind]), count, percent(told["rate"]), _ends(told), far, inside]


def _left(report: Mapping[str, Any]) -> list[list[str]]:
    if not any(arm in report["tuned"] for arm in TUNED):
        return []
    rows = []
    for kind in CONCEPT:
        arms = report["rates"][kind]["arms"]
        if arms:
            shares = [
                percent(arms[arm]["rate"]) if arm in arms else say(NOT) for arm in (SAFE, *TUNED)
            ]
            rows.append([say(KINDS[kind]), str(report["rates"][kind]["pictures"]), *shares])
    return rows


def _ends(told: Mapping[str, Any]) -> str:
    low, high = map(percent, told["rate_95"])
    return say("{low} to {high}", low=low, high=high)


def _number(value: float | None) -> str:
    return say(NOT) if value is None or not math.isfinite(value) else f"{value:.2f}"
