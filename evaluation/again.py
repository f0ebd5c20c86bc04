"""A finished audit counted again without its model, whose files are what they were."""

import json
from collections.abc import Mapping
from typing import Any

from ..storage.whole import write_text
from .job import AuditJob

FILE = "model.json"  # beside the rows: of which files the model was loaded, and what it holds


def remember(job: AuditJob, holds: Mapping[str, Any]) -> None:
    """Keep what a model holds (`Maker.holds`) beside what the job says that it was loaded of."""
    if job.loaded:
        told = {"loaded": dict(job.loaded), "holds": dict(holds)}
        write_text(job.folder / FILE, json.dumps(told, indent=1))


def known(job: AuditJob) -> dict[str, Any] | None:
    """What the job's model holds, from the run that made all its pictures; None: load it.

    The same files and settings were loaded then, each file by its SHA-256. What can't be told of a
    model, a picture that is missing and a file that can't be read need the model itself.
    """
    if not job.loaded or job.done() < len(job.prompts):
        return None
    try:
        told = json.loads((job.folder / FILE).read_text(encoding="utf-8"))
        found = told["holds"] if told["loaded"] == json.loads(json.dumps(job.loaded)) else {}
        is_told = isinstance(found["model"], str) and found["untold"] == []
        return dict(found) if is_told and isinstance(found["of"], dict) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
