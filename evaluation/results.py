"""The report of a prompt set, as JSON and as a page."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from urllib.parse import quote

from ..audit.folders import export
from ..audit.folders.store import Store
from ..audit.page import page
from ..audit.thumbnails import Thumbnail, of_file
from ..options.language import say, say_many, spoken
from ..options.words import amount
from ..storage.whole import write_text
from .about import about as about_run
from .job import AuditJob
from .metrics import measured
from .prompt_set import PromptSet


def write_report(store: Store, job: AuditJob, identity: dict, made_of: Mapping) -> dict:
    """Write report.json and report.html; the summary. No more than a row is held."""
    prompts = job.prompts
    selected = {
        "file": prompts.file,
        "sha256": prompts.sha256,
        **asdict(prompts.selection),
        "selected": prompts.rows,
        "columns": dict(prompts.columns),
    }
    summary = export.summarised(store, job.rules) | {
        "prompts": selected,
        "sampling": identity["sampling"],
        "model": identity["model"],
        # of every row, whenever it was made: a resumed run samples nothing and has found nothing
        "lock_findings": list(
            dict.fromkeys(each for row in store.all() for each in row.get("lock_findings", []))
        ),
    }
    if job.protocol:
        summary["protocol"] = measured(job.protocol, summary)
    about = about_run(made_of, job, store.all())
    shown = export.shown(store, lambda row: _thumbnail(row, job.folder))
    summary["not_made"] = _not_made(shown.unreadable, summary["unreadable"], prompts)
    summary["verdict"] = "; ".join(filter(None, (summary["verdict"], summary["not_made"])))
    export.write_json(job.folder / "report.json", store, summary, about)
    title, note = _title(job), _note(job, summary["rows_left_out"])
    write_text(job.folder / "report.html", page(title, about, summary, shown, identity, note=note))
    return summary


@spoken()
def _title(job: AuditJob) -> str:
    """The page's title."""
    return say("Audit of {name}: {run}", name=job.title, run=job.run)


@spoken()
def _note(job: AuditJob, left_out: int) -> str:
    """What the page says was looked at."""
    prompts = job.prompts
    note = ", ".join([prompts.file, amount(prompts.rows, "prompt"), *_chosen(job)])
    if not left_out:
        return note
    others = say_many(
        "{count} row of other selections kept and left out",
        "{count} rows of other selections kept and left out",
        left_out,
    )
    return f"{note}; {others}"


def _chosen(job: AuditJob) -> list[str]:
    return [str(job.prompts.selection)] if str(job.prompts.selection) else []


def _thumbnail(row: Mapping, folder: Path) -> Thumbnail | None:
    """That of a row whose picture was kept."""
    kept = row.get("picture")
    return of_file(row, folder / kept, quote(kept)) if kept else None


def _not_made(rows: Sequence[Mapping], count: int, prompts: PromptSet) -> str:
    """How many prompts gave no picture, and why the first did not; nothing when all did."""
    if not count:
        return ""
    first = f"first: {rows[0]['key']}, {rows[0]['unreadable']}"
    if prompts.rows < len(prompts):
        return f"{count} of {amount(len(prompts), 'picture')} could not be made ({first})"
    return f"{count} of {amount(prompts.rows, 'prompt')} gave no picture ({first})"
