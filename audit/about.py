"""What an audit is about: which model made the pictures, when, and what is known of its lock."""

import datetime
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from ..options.language import phrase, say, say_many

About: TypeAlias = Mapping[str, Any]
INTACT, FAULTS, NONE = "intact", "faults", "none"
PARTLY, UNKNOWN, PICTURES = "partly", "unknown", "pictures"
STATES = {  # of the safety LoRA, as a report's `safety_lora` has it
    INTACT: phrase(
        "The safety LoRA on the model is intact: its lock looked at every sampling and found"
        " nothing."
    ),
    FAULTS: phrase(
        "The safety LoRA was not whole, or may not have been. What its lock found is listed."
    ),
    NONE: phrase(
        "No safety LoRA was locked on this model: Modular Merge was bypassed, or not used."
    ),
    PARTLY: phrase(
        "A safety LoRA was not on everything that made these pictures. Modular Merge may be"
        " bypassed, or its model or clip not connected everywhere."
    ),
    UNKNOWN: phrase("Whether a safety LoRA was on the model is not known."),
    PICTURES: phrase("Only the pictures were looked at: nothing says which model made them."),
}
ROLES = {
    "safety": phrase("safety LoRA"),
    "task": phrase("task LoRA"),
    "other": phrase("LoRA outside Modular Merge"),
}
DIGITS = 12  # of a digest, for people


def about(
    models: Sequence[Mapping[str, Any]] = (), state: str = PICTURES, run: str = ""
) -> dict[str, Any]:
    """What a report says first, JSON-ready: the run's name, the day, the models, the lock."""
    if state not in STATES:
        raise ValueError(f"safety_lora is {state!r}; it must be one of {', '.join(STATES)}.")
    day = datetime.date.today().isoformat()
    return {"run": run, "date": day, "models": list(models), "safety_lora": state}


def facts(told: About) -> list[tuple[str, str]]:
    """What is known, each with its name, for the top of a page."""
    found = [(say("run"), told["run"])] if told["run"] else []
    for each in told["models"]:
        found.append(
            (say("checkpoint"), _with_digest(each["base"] or "?", each.get("base_sha256")))
        )
        found += [(say(ROLES[lora["role"]]), _lora(lora)) for lora in each["loras"]]
        named = any(lora["role"] != "safety" for lora in each["loras"])
        if each.get("patched") and not named:
            patched = say_many("{count} weight patched", "{count} weights patched", each["patched"])
            found.append((say("other changes"), patched))
    return [*found, (say("date"), told["date"])]


def in_a_line(told: About, bold: str = "**") -> str:
    """The same as a line, of Markdown unless told; empty where nothing is known of a model."""
    if not told["models"]:
        return ""
    return "; ".join(f"{name} {bold}{words}{bold}" for name, words in facts(told))


def in_short(told: About | None) -> str:
    """The line, and what is known of the safety LoRA; of a report of any version."""
    if told is None:
        return say("made by an earlier version, which did not keep what made the pictures")
    line, state = in_a_line(told, ""), say(STATES[told["safety_lora"]])
    return f"{line}. {state}" if line else state


def _lora(lora: Mapping[str, Any]) -> str:
    strengths = [lora[name] for name in ("strength", "strength_clip") if lora.get(name) is not None]
    at = " / ".join(f"{each:g}" for each in dict.fromkeys(strengths))
    named = _with_digest(lora["name"], lora.get("sha256"))
    return say("{file} at {strength}", file=named, strength=at) if at else named


def _with_digest(name: str, digest: str | None) -> str:
    return f"{name} ({digest[:DIGITS]})" if digest else name
