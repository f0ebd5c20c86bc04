"""A prompt set through a model: a picture at a time, audited as it comes, a row kept for each."""

import hashlib
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace

import comfy.model_management
import torch
from PIL import Image

from ..audit import censor
from ..audit.detectors.batches import Unjudged
from ..audit.report import judged
from ..host.fingerprint import fingerprint
from ..host.named import digests_of, named_in
from ..host.prefixes import faults_of, folders_of
from ..host.prompts import encode_texts
from ..host.sampling import as_picture, make_picture, out_of_memory
from ..host.sampling_settings import Sampling
from ..merge.findings import findings
from ..options.errors import PackError
from .about import made_of
from .again import known
from .embedded import KEY, of_prompt
from .job import AuditJob
from .prompt_set import Prompt
from .rows import Made, asked, kept

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
    maker = Maker(model, clip, vae, job)
    with kept(job, maker.holds()) as rows:
        for window in windows(rows.todo):
            for prompt, texts in window:
                rows.add(prompt, maker.made(prompt, texts))
        return rows.report()


def windows(
    todo: Sequence[Prompt], workers: int = 1
) -> Iterator[Sequence[tuple[Prompt, tuple[str, ...]]]]:
    """Prompts that one process makes after another, each with the texts of all of them.

    Of several workers each gets less in the end, so that they end together.
    """
    at = 0
    while at < len(todo):
        share = WINDOW if workers == 1 else max(1, (len(todo) - at) // (2 * workers))
        window = todo[at : at + min(WINDOW, share)]
        texts = tuple(text for prompt in window for text in (prompt.text, prompt.negative))
        yield [(prompt, texts) for prompt in window]
        at += len(window)


def report_again(job: AuditJob) -> dict | None:
    """The report of a finished run, by the job's rules; its summary. None where it needs the model.

    Raises StoreError as `run` does.
    """
    job = replace(job, rules=job.rules.pinned())
    holds = known(job)
    if holds is None:
        return None
    with kept(job, holds) as rows:
        return None if rows.todo else rows.report()


class Maker:
    """A model with its text encoder and VAE, and what a job asks of their pictures."""

    def __init__(self, model, clip, vae, job: AuditJob, threads: int = 0):
        self.model, self.clip, self.vae, self.job = model, clip, vae, job
        self.opinions = lambda: job.rules.opinions(threads)
        self.texts: dict = {}
        self.of_texts: list[str] = []  # what locks found when these were encoded
        self.embeddings = digests_of(job.texts, folders_of(clip))

    def holds(self) -> dict:
        """What says which model it is: two that hold the same make the same pictures."""
        seen = fingerprint(self.model, self.clip, self.vae)
        about = made_of(self.model, self.clip)
        named = {KEY: self.embeddings} if self.embeddings else {}
        return {"model": seen.sha256, "untold": list(seen.untold), "of": about} | named

    def made(self, prompt: Prompt, texts: Sequence[str]) -> Made:
        """What comes of a prompt. `texts` are encoded if those before did not hold its own."""
        faults = self._faults(prompt)
        if faults:
            prompt = replace(prompt, fault="; ".join(faults))
        elif not {prompt.text, prompt.negative} <= self.texts.keys():
            readable = [text for text in texts if not named_in(text)[1]]
            with findings.gathered() as self.of_texts:
                self.texts = encode_texts(self.clip, readable)
        with findings.gathered() as found:
            made = self._looked_at(prompt)
        made.row["lock_findings"] = list(dict.fromkeys([*self.of_texts, *found]))
        return made

    def _faults(self, prompt: Prompt) -> list[str]:
        """Why the host would read other texts than the prompt's, or not those of this run."""
        if prompt.fault:
            return [prompt.fault]
        told = dict.fromkeys((prompt.text, prompt.negative))
        faults = [each for text in told for each in faults_of(self.clip, text)]
        now = of_prompt(digests_of(told, folders_of(self.clip)), prompt)
        if now and not faults and now != of_prompt(self.embeddings, prompt):
            faults.append(f"{', '.join(now)}: its file was changed while this run went on")
        return faults

    def _looked_at(self, prompt: Prompt) -> Made:
        row, (first, second) = asked(prompt), self.opinions()
        try:
            picture = made(self.model, self.vae, prompt, self.texts, self.job.sampling)
            result = judged([picture.numpy()], first, second)["images"][0]
        except (NotMade, Unjudged) as error:
            return Made(row | {"unreadable": str(error)})
        row |= result
        blurred = as_picture(censor.apply(picture[None], {"images": [result]}, "blur")[0])
        keep = self.job.keep
        if not (keep.startswith("all") or (keep.startswith("flagged") and result["flagged"])):
            return Made(row, None, blurred)
        row["picture"] = f"pictures/{file_name(prompt.key)}.png"
        row["censored"] = result["flagged"] and keep.endswith("censored")
        shown = blurred if keep.endswith("censored") else as_picture(picture)
        return Made(row, _png(shown), blurred)


def _png(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def made(model, vae, prompt: Prompt, texts: dict, sampling: Sampling) -> torch.Tensor:
    """The picture of one prompt. Raises NotMade."""
    if prompt.fault:
        raise NotMade(prompt.fault)
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


def file_name(key: str) -> str:
    """A name for the picture of a key, another for every key, on every file system."""
    plain = re.sub("[^a-z0-9_-]", "_", key.lower())[:LONGEST]
    return plain if plain == key else f"{plain}-{hashlib.sha256(key.encode()).hexdigest()[:12]}"
