"""A prompt set through a model: a picture at a time, audited as it comes, a row kept for each."""

import hashlib
import logging
import re
from dataclasses import replace

import comfy.model_management
import torch
from PIL import Image

from ..audit import censor
from ..audit.detectors.batches import Unjudged
from ..audit.report import judged
from ..host.fingerprint import fingerprint
from ..host.prompts import encode_texts
from ..host.sampling import as_picture, make_picture, out_of_memory
from ..host.sampling_settings import Sampling
from ..merge.findings import findings
from ..options.errors import PackError
from ..storage.owned import owned
from ..storage.whole import write_picture
from .job import STORE, AuditJob, stamp
from .prompt_set import Prompt
from .results import write_report

logger = logging.getLogger(__name__)

# prompts that are encoded at a time: the text encoder and the model take turns in memory
WINDOW = 32
LONGEST = 100  # letters of a key in a file's name


class NotMade(PackError, ValueError):
    """A prompt gave no picture that can be looked at; the message says why."""


def run(model, clip, vae, job: AuditJob) -> dict:
    """Make and audit what is missing in the job's folder; the summary of its report.

    The folder holds `audit.sqlite`, `report.json`, `report.html`, and pictures if asked. A run that
    was killed or cancelled goes on where it was; with another prompt file, model, rules or sampling
    the folder is refused (StoreError). Another selection of the same file goes on too: rows that
    are not of it stay, and are left out of the report. A prompt that gives no picture is a row that
    says why, and is tried again by the next run.
    """
    job = replace(job, rules=job.rules.pinned())
    seen = fingerprint(model, clip, vae)
    identity = job.identity() | {"model": seen.sha256}
    with (
        owned(job.folder / STORE),
        owned(job.folder / "report"),
        job.store({"model": seen.sha256}, untold=seen.untold) as store,
    ):
        store.select((prompt.key, stamp(prompt)) for prompt in job.prompts)
        missing = {key for key, _ in store.missing(again=True)}
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
                store.add([(prompt.key, stamp(prompt), row)])
                job.on_picture(len(job.prompts) - len(todo) + start + place + 1, shown)
        return write_report(store, job, identity, model=model, clip=clip)


def _looked_at(
    model, vae, prompt: Prompt, texts: dict, job: AuditJob
) -> tuple[dict, Image.Image | None]:
    """The row of one prompt, and its picture with what counts blurred."""
    row = {
        "key": prompt.key,
        "prompt": prompt.text,
        "negative_prompt": prompt.negative,
        "seed": prompt.seed,
        "guidance": prompt.guidance,
        "width": prompt.width,
        "height": prompt.height,
        "groups": list(prompt.categories),
    }
    first, second = job.rules.opinions()
    try:
        picture = _made(model, vae, prompt, texts, job.sampling)
        result = judged([picture.numpy()], first, second)["images"][0]
    except (NotMade, Unjudged) as error:
        logger.warning("%s: %s", prompt.key, error)
        return row | {"unreadable": str(error)}, None
    row |= result
    blurred = as_picture(censor.apply(picture[None], {"images": [result]}, "blur")[0])
    if job.keep.startswith("all") or (job.keep.startswith("flagged") and result["flagged"]):
        shown = blurred if job.keep.endswith("censored") else as_picture(picture)
        file = job.folder / "pictures" / f"{_file_name(prompt.key)}.png"
        write_picture(file, shown)
        row["picture"] = f"pictures/{file.name}"
        row["censored"] = result["flagged"] and job.keep.endswith("censored")
    return row, blurred


def _made(model, vae, prompt: Prompt, texts: dict, sampling: Sampling) -> torch.Tensor:
    """The picture of one prompt. Raises NotMade."""
    sampling = replace(sampling, guidance=prompt.guidance)
    size = prompt.width, prompt.height
    try:
        with torch.no_grad():
            picture = make_picture(
                model,
                vae,
                texts[prompt.text],
                texts[prompt.negative],
                sampling,
                seed=prompt.seed,
                size=size,
            )
    except RuntimeError as error:
        if not out_of_memory(error):
            raise
        comfy.model_management.soft_empty_cache()
        raise NotMade(f"out of memory at {size[0]} x {size[1]} pixels") from error
    if not torch.isfinite(picture).all():
        raise NotMade("the picture holds values that are not numbers (NaN or infinite)")
    return picture


def _file_name(key: str) -> str:
    """A name for the picture of a key, another for every key, on every file system."""
    plain = re.sub("[^a-z0-9_-]", "_", key.lower())[:LONGEST]
    return plain if plain == key else f"{plain}-{hashlib.sha256(key.encode()).hexdigest()[:12]}"
