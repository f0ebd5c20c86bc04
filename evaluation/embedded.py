"""The embeddings that a job's prompts name: rows are of them, by their SHA-256, as of the model."""

from collections.abc import Mapping
from typing import Any

from ..audit.folders.store import WAY_OUT, StoreError
from ..options.words import amount
from ..storage.differing import difference
from .job import STORE, AuditJob, stamp
from .prompt_set import Prompt

KEY = "embeddings"  # of what a model holds, of what it was loaded of, and of a row
Digests = Mapping[str, str]  # by name, of those that are there
ByText = Mapping[str, Digests]  # of texts with an `embedding:`


def of_prompt(by_text: ByText, prompt: Prompt) -> dict[str, str] | None:
    """Those that a prompt names; None for one without an `embedding:`."""
    found = [by_text[text] for text in (prompt.text, prompt.negative) if text in by_text]
    return {name: each for digests in found for name, each in digests.items()} if found else None


def check_embeddings(job: AuditJob, by_text: ByText) -> None:
    """Raise StoreError if rows of the job's folder were made with others than there are now.

    A prompt that gave no picture is no such row: it is tried again.
    """
    if not by_text or not (job.folder / STORE).exists():
        return
    now = {each.key: of_prompt(by_text, each) for each in job.prompts}
    with job.store({}, partial=True) as store:
        store.select((prompt.key, stamp(prompt)) for prompt in job.prompts)
        rows = [row for row in store.all() if "unreadable" not in row]
    named = [(_before(row, there), there) for row in rows if (there := now[row["key"]]) is not None]
    other = [(before, there) for before, there in named if before != there]
    if other:
        raise StoreError(
            f"{store.path} holds {amount(len(other), 'row')} of an audit made with another"
            f" {difference(*other[0], {}, {})}. {WAY_OUT}"
        )


def _before(row: Mapping[str, Any], now: Digests) -> Digests:
    """What a row was made with; an earlier version did not say it."""
    before: Digests | None = row.get(KEY)
    return dict.fromkeys(now or (KEY,), "not known") if before is None else before
