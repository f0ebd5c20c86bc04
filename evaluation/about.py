"""What the audit of a prompt set is about: the model as it came in, and what its lock found."""

from collections.abc import Iterable, Mapping

from ..audit import about as words
from ..merge.about import about_model, is_on_text
from ..merge.on_model import KEY
from .job import AuditJob


def made_of(model, clip) -> dict:
    """The model as it came in, JSON-ready: what it is made of, and how far its lock reaches."""
    return {
        "model": about_model(model),
        "is_locked": model.get_attachment(KEY) is not None,
        "is_on_text": is_on_text(model, clip),
    }


def about(found: Mapping, job: AuditJob, rows: Iterable[Mapping]) -> dict:
    """The report's `about`, of what `made_of` gave; `rows` are all of it, made now or earlier."""
    model = dict(found["model"])
    model["loras"] = [
        *model["loras"],
        *(lora for lora in job.loras if not _is_among(lora, model["loras"])),
    ]
    return words.about([model], _state(found, rows), job.run)


def _is_among(lora: Mapping, others: Iterable[Mapping]) -> bool:
    return any(each["name"] == lora["name"] for each in others)


def _state(found: Mapping, rows: Iterable[Mapping]) -> str:
    if not found["is_locked"]:
        return words.NONE
    if not found["is_on_text"]:
        return words.PARTLY
    looked = [row.get("lock_findings") for row in rows if "unreadable" not in row]
    if any(looked):
        return words.FAULTS
    # a row of an earlier version does not say that the lock looked
    return words.INTACT if looked and None not in looked else words.UNKNOWN
