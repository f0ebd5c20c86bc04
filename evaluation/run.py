"""A prompt set through a model: a picture at a time, audited as it comes, a row kept for each."""

import hashlib
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from PIL import Image

from ..audit import censor
from ..audit.folders import export
from ..audit.folders.store import Store
from ..audit.folders.totals import Totals
from ..audit.page import page
from ..audit.report import audit
from ..audit.rules import Rules
from ..host.fingerprint import fingerprint
from ..host.prompts import encode_texts
from ..host.sampling import Sampling, as_picture, make_picture
from ..merge.findings import findings
from ..storage.whole import write_text
from .prompt_set import Prompt, PromptSet

KEEP = ("none", "flagged, censored", "all, censored", "all, as they are")
# prompts that are encoded at a time: the text encoder and the model take turns in memory
WINDOW = 32
LONGEST = 100  # letters of a key in a file's name


@dataclass(frozen=True)
class AuditJob:
    """A prompt set, how it is sampled and judged, and the folder of the results.

    `on_picture` is called with the count done and the newest picture, what is counted blurred; it
    may raise to stop.
    """

    title: str
    prompts: PromptSet
    rules: Rules
    sampling: Sampling
    folder: Path
    keep: str = "none"
    on_picture: Callable[[int, Image.Image | None], None] = lambda done, picture: None

    def __post_init__(self):
        if self.keep not in KEEP:
            raise ValueError(f"keep is {self.keep!r}; it must be one of {', '.join(KEEP)}.")


def run(model, clip, vae, job: AuditJob) -> dict:
    """Make and audit what is missing in the job's folder; the summary of its report.

    The folder holds `audit.sqlite`, `report.json`, `report.html`, and pictures if asked. A run that
    was killed or cancelled goes on where it was; with another prompt file, model, rules or sampling
    the folder is refused (StoreError). Another selection of the same file goes on too: rows that
    are not of it stay, and are left out of the report.
    """
    job = replace(job, rules=job.rules.pinned())
    identity = job.rules.identity() | {
        "prompt file": job.prompts.sha256,
        "row defaults": asdict(job.prompts.defaults),
        "model": fingerprint(model, clip, vae),
        "sampling": {
            name: value for name, value in asdict(job.sampling).items() if name != "guidance"
        },
    }
    with Store(job.folder / "audit.sqlite", identity, {"prompt file": job.prompts.file}) as store:
        store.select((prompt.key, _stamp(prompt)) for prompt in job.prompts)
        missing = {key for key, _ in store.missing()}
        todo = [prompt for prompt in job.prompts if prompt.key in missing]
        job.on_picture(len(job.prompts) - len(todo), None)
        for start in range(0, len(todo), WINDOW):
            window = todo[start : start + WINDOW]
            with findings.gathered() as of_texts:
                texts = encode_texts(
                    clip, [text for prompt in window for text in (prompt.text, prompt.negative)]
                )
            for place, prompt in enumerate(window):
                with findings.gathered() as found:
                    row, shown = _looked_at(model, vae, prompt, texts, job)
                row["lock_findings"] = list(dict.fromkeys([*of_texts, *found]))
                store.add([(prompt.key, _stamp(prompt), row)])
                job.on_picture(len(job.prompts) - len(todo) + start + place + 1, shown)
        return _report(store, job, identity)


def _looked_at(model, vae, prompt: Prompt, texts: dict, job: AuditJob) -> tuple[dict, Image.Image]:
    """The row of one prompt, and its picture with what counts blurred."""
    sampling = replace(job.sampling, guidance=prompt.guidance)
    conditionings = texts[prompt.text], texts[prompt.negative]
    with torch.no_grad():
        picture = make_picture(
            model,
            vae,
            *conditionings,
            sampling,
            seed=prompt.seed,
            size=(prompt.width, prompt.height),
        )
    first, other = job.rules.detectors()
    result = audit(
        [picture.numpy()], job.rules.preset, second=job.rules.second, detector=first, other=other
    )["images"][0]
    blurred = as_picture(censor.apply(picture[None], {"images": [result]}, "blur")[0])
    row = {
        "key": prompt.key,
        "prompt": prompt.text,
        "negative_prompt": prompt.negative,
        "seed": prompt.seed,
        "guidance": prompt.guidance,
        "width": prompt.width,
        "height": prompt.height,
        "groups": list(prompt.categories),
        **result,
    }
    if job.keep.startswith("all") or (job.keep.startswith("flagged") and result["flagged"]):
        shown = blurred if job.keep.endswith("censored") else as_picture(picture)
        file = job.folder / "pictures" / f"{_file_name(prompt.key)}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        shown.save(file)
        row["picture"] = f"pictures/{file.name}"
    return row, blurred


def _report(store: Store, job: AuditJob, identity: dict) -> dict:
    """Write report.json and report.html; the summary. No more than a row is held."""
    first, other = job.rules.detectors()
    totals = Totals(job.rules.preset, first, job.rules.second, other)
    prompts = job.prompts
    selected = {
        "file": prompts.file,
        "sha256": prompts.sha256,
        **asdict(prompts.selection),
        "selected": len(prompts),
    }
    summary = export.summarised(store, totals) | {
        "prompts": selected,
        "sampling": identity["sampling"],
        "model": identity["model"],
        # of every row, whenever it was made: a resumed run samples nothing and has found nothing
        "lock_findings": list(
            dict.fromkeys(each for row in store.all() for each in row.get("lock_findings", []))
        ),
    }
    export.write_json(job.folder / "report.json", store, summary)
    flagged = export.first_rows(store, lambda row: row.get("flagged"))
    note = ", ".join(filter(None, [f"{len(prompts)} prompts", str(prompts.selection)]))
    if summary["rows_left_out"]:
        note += f"; {summary['rows_left_out']} rows of other selections are kept and left out"
    write_text(
        job.folder / "report.html",
        page(f"Audit of {job.title}", summary, flagged, [], identity, note=note),
    )
    return summary


def _stamp(prompt: Prompt) -> str:
    return repr(prompt)


def _file_name(key: str) -> str:
    """A name for the picture of a key, another for every key, on every file system."""
    plain = re.sub("[^a-z0-9_-]", "_", key.lower())[:LONGEST]
    return plain if plain == key else f"{plain}-{hashlib.sha256(key.encode()).hexdigest()[:12]}"
