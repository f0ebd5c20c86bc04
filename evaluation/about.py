"""What the audit of a prompt set is about: the model as it came in, and what its lock found."""

from collections.abc import Iterable, Mapping

from ..audit import about as words
from ..merge.about import about_model, is_on_text
from ..merge.on_model import KEY
from .job import AuditJob


def about(model, clip, job: AuditJob, rows: Iterable[Mapping]) -> dict:
    """The report's `about`; `rows` are all of it, made now or earlier by the same model."""
    found = about_model(model)
    found["loras"] += [lora for lora in job.loras if not _is_among(lora, found["loras"])]
    return words.about([found], _state(model, clip, rows), job.run)


def _is_among(lora: Mapping, others: Iterable[Mapping]) -> bool:
    return any(each["name"] == lora["name"] for each in others)


def _state(model, clip, rows: Iterable[Mapping]) -> str:
    if model.get_attachment(KEY) is None:
        return words.NONE
    if not is_on_text(model, clip):
        return words.PARTLY
    looked = [row.get("lock_findings") for row in rows if "unreadable" not in row]
    if any(looked):
        return words.FAULTS
    # a row of an earlier version does not say that the lock looked
    return words.INTACT if looked and None not in looked else words.UNKNOWN
