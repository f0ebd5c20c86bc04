"""The settings in words: what each is, what a file of them comes to, and what it leaves open."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ..provenance.certificates import NotInstalled, SigningError
from ..provenance.claims import try_out
from ..storage.checked import faults_of
from ..storage.faults import told
from .audits import mistakes
from .fields import AT_START, Operator, starts_with
from .file import misplaced, settings_in

# What an operator begins with. It closes at once: the lists are theirs to fill.
START = {"require_lock": True, "allowed_safety": [], "trusted_keys": [], "evidence_log": True}


def rows() -> Iterator[tuple[str, str, bool]]:
    """(setting as it is written, what it demands, whether it is read at the start)."""
    for name, field in Operator.model_fields.items():
        (example,) = field.examples or [None]
        yield (
            f"{json.dumps(name)}: {json.dumps(example)}",
            str(field.description),
            starts_with(name),
        )


def explained() -> list[str]:
    """Every setting, for a terminal."""
    lines = []
    for written, words, at_start in rows():
        lines += [written, f"    {words}{f' ({AT_START})' if at_start else ''}"]
    return lines


def table() -> list[str]:
    """The same as a list in Markdown."""
    return [
        f"- `{written}`: {words}{' *' if at_start else ''}" for written, words, at_start in rows()
    ]


def faults_in(path: Path) -> list[str]:
    """All that is wrong with a file of settings; while there is anything, nothing samples."""
    try:
        settings_in(path)
    except ValidationError as error:
        return faults_of(error, Operator)
    except (OSError, ValueError) as error:
        return [told(error)]
    return []


def holds(found: Operator) -> list[str]:
    """What a file of settings comes to, a sentence for each that demands something."""
    said = []
    for name, field in Operator.model_fields.items():
        value = getattr(found, name)
        if value != field.default:
            counted = f" ({len(value)})" if isinstance(value, tuple | dict) else ""
            said.append(f"{name}{counted}: {field.description}")
    return said


def left_open(found: Operator, path: Path) -> list[str]:
    """What somebody who wrote this may have meant to close."""
    said = [f"{each} is read by nothing." for each in misplaced(path)]
    said += mistakes(found)
    try:
        if (by := found.credentials) is not None:
            try_out(by)
    except (SigningError, NotInstalled, ValueError) as error:
        said.append(f"provenance: {error} Until then Save Image with Provenance saves nothing.")
    if not found.require_lock:
        said.append("Without require_lock every graph may leave the safety LoRA out.")
    elif not (found.allowed_safety or found.trusted_keys):
        said.append(
            "Anyone can seal a LoRA that suppresses nothing: add allowed_safety or trusted_keys."
        )
    if found.require_lock and not found.allowed_bases:
        said.append("Whoever can save models can save a base that cancels it: add allowed_bases.")
    if found.evidence_log and not found.require_lock:
        said.append("evidence_log has no line of a model that samples without a safety LoRA.")
    if found.metrics_file and not (found.folder / found.metrics_file).parent.is_dir():
        said.append(f"metrics_file: {found.metrics_file} lies in a folder that is not there.")
    if found.webhook and found.webhook.url.startswith("http:"):
        said.append("webhook.url is not https: what it sends can be read on its way.")
    return said


def comments(wanted: dict[str, Any]) -> list[str]:
    """What to write for each of these settings; JSON has no comments."""
    return [f"{name}: {Operator.model_fields[name].description}" for name in wanted]


def start() -> str:
    """A file of settings to begin with."""
    return json.dumps(START, indent=2) + "\n"
