"""A prompt set as it is told and with what was searched for before each prompt, audited both times.

The folder gets `as-told` and `found`, two audits like any other, and `embeddings`: what was found,
each a file that ComfyUI reads as an embedding.
"""

import contextlib
import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any

import comfy.model_management
import torch
from comfy.model_patcher import ModelPatcher
from PIL import Image

from ..audit.detectors.batches import Unjudged
from ..audit.report import judged
from ..evaluation.job import AuditJob
from ..evaluation.prompt_set import Prompt, PromptSet
from ..evaluation.run import WINDOW, NotMade, made
from ..evaluation.run import run as audited
from ..host.comfy_types import Clip, Conditioning
from ..host.fingerprint import fingerprint
from ..host.lending import lent, lent_clip
from ..host.named import digests_of
from ..host.prefixes import PrefixError, check_read, embeddings_in, encoders_of, folders_of
from ..host.prompts import encode_texts
from ..host.sampling import make_latents, out_of_memory
from ..storage.owned import owned
from .kept import Kept
from .results import EMBEDDINGS, FOUND, TOLD
from .search import Found, SearchError, search
from .settings import Searching

logger = logging.getLogger(__name__)
SEARCHED = "with what was searched for before each prompt"  # how the second differs


@dataclass(frozen=True)
class SearchJob:
    """An audit of a prompt set, and how words are searched for; its folder is the search's.

    `on_step` is called with the steps done and in all; a prompt that is done sooner counts whole.
    `on_picture` is called as an audit's, with the name of one of the two before it.
    """

    audit: AuditJob
    how: Searching = field(default_factory=Searching)
    on_step: Callable[[int, int], None] = lambda done, total: None
    on_picture: Callable[[str, int, Image.Image | None], None] = lambda part, done, picture: None

    def part(self, name: str, prompts: PromptSet | None = None) -> AuditJob:
        """The audit of one of the two, below the search's folder."""
        folder, prompts = self.audit.folder / name, prompts or self.audit.prompts
        protocol = self.audit.protocol
        if protocol and name == FOUND:
            protocol = {**protocol, "changes": [*protocol["changes"], SEARCHED]}
        told = {"folder": folder, "name": name, "prompts": prompts, "protocol": protocol}
        return replace(self.audit, **told, on_picture=partial(self.on_picture, name))


@dataclass(frozen=True)
class Models:
    """`base` still draws what was taken away: the search aims at its pictures. `model` is asked."""

    base: ModelPatcher
    model: ModelPatcher
    clip: Clip
    vae: object


def run(models: Models, job: SearchJob) -> tuple[dict[str, Any], dict[str, Any]]:
    """Search for each prompt that is not flagged as told; the summaries of the two audits.

    The same call goes on where it was stopped: what was found is not searched again. A prompt whose
    search failed, or that gave no picture as told, is a row that says so, never one that held, and
    is tried again. Raises PrefixError for a text encoder that can't be searched, OtherSearch for
    another one's folder, SearchError for two models that are one.
    """
    encoders_of(models.clip)  # before the first picture
    asked = models.model, models.clip, models.vae
    folder, prompts = job.audit.folder, job.audit.prompts
    stamp = {
        "search": asdict(job.how),
        "sampling": asdict(job.audit.sampling),
        "rules": job.audit.rules.pinned().identity(),
        "model": fingerprint(*asked).sha256,
        "base": fingerprint(models.base, models.clip, models.vae).sha256,
    }
    if stamp["model"] == stamp["base"]:
        raise SearchError(
            "model and base are the same, so there is nothing that was taken away. Connect the safe"
            " model to model, and what comes from its loader to base."
        )
    with owned(folder / EMBEDDINGS):
        named = digests_of(job.audit.texts, folders_of(models.clip))
        kept = Kept(folder / EMBEDDINGS, json.loads(json.dumps(stamp)), named)
        told = audited(*asked, job.part(TOLD))
        report = json.loads((folder / TOLD / "report.json").read_text(encoding="utf-8"))
        flagged = {row["key"] for row in report["images"] if row["flagged"]}
        faults = {row["key"]: f"as told: {row['reason']}" for row in report["unreadable"]}
        held = [each for each in prompts if each.key not in flagged | faults.keys()]
        todo = [each for each in held if each not in kept]
        if todo:
            with lent(models.model) as model, lent_clip(models.clip) as clip:
                own = replace(models, model=model, clip=clip)
                faults |= _search_all(own, todo, job, kept)

    def asked_for(prompt: Prompt) -> Prompt:
        if prompt.key in flagged:
            return prompt
        if prompt in kept and prompt.key not in faults:
            return replace(prompt, text=kept.text(prompt))
        return replace(prompt, fault=faults.get(prompt.key, "it was not searched"))

    found = tuple(map(asked_for, prompts))
    with embeddings_in(models.clip, folder / EMBEDDINGS):
        for prompt, each in zip(prompts, found, strict=True):
            if each.text != prompt.text:
                check_read(models.clip, each.text, prompt.text, job.how.length)
        after = audited(*asked, job.part(FOUND, replace(prompts, prompts=found)))
    return told, after


def _search_all(
    models: Models, todo: Sequence[Prompt], job: SearchJob, kept: Kept
) -> dict[str, str]:
    """Search for each prompt, and keep what is found; by key, why some failed."""
    faults: dict[str, str] = {}
    for start in range(0, len(todo), WINDOW):
        window = todo[start : start + WINDOW]
        texts = encode_texts(
            models.clip, [text for each in window for text in (each.text, each.negative)]
        )
        aims = {}
        for prompt in window:  # first for all: the two models take turns in memory
            with _told(prompt, faults):
                aims[prompt] = _aim(models.base, prompt, texts, job)
        for place, prompt in enumerate(window):
            steps = _Steps(job, start + place, len(todo))
            with _told(prompt, faults):
                if prompt in aims:
                    given = aims[prompt], texts
                    kept.add(prompt, _searched(models, prompt, given, job, steps))
            steps.done()
    return faults


@contextlib.contextmanager
def _told(prompt: Prompt, faults: dict[str, str]) -> Iterator[None]:
    """A block whose failure is one of this prompt, and ends nothing else."""
    try:
        yield
        return
    except (SearchError, PrefixError, NotMade, Unjudged) as error:
        why = str(error)
    except RuntimeError as error:
        if not out_of_memory(error):
            raise
        comfy.model_management.soft_empty_cache()
        why = "out of memory"
    faults[prompt.key] = f"the search failed: {why}"
    logger.warning("%s: %s", prompt.key, faults[prompt.key])


class _Steps:
    """Tells a job how far it is while one prompt of several is searched."""

    def __init__(self, job: SearchJob, place: int, prompts: int):
        self.job, self.each = job, job.how.levels * job.how.iterations
        self.now, self.end, self.total = (
            self.each * number for number in (place, place + 1, prompts)
        )

    def one(self) -> None:
        self.now += 1
        self.job.on_step(self.now, self.total)

    def done(self) -> None:
        self.job.on_step(self.end, self.total)


def _aim(
    base: ModelPatcher, prompt: Prompt, texts: Mapping[str, Conditioning], job: SearchJob
) -> torch.Tensor:
    """The latents of what the base draws for a prompt as told, from the same seed."""
    told = texts[prompt.text], texts[prompt.negative]
    sampling = replace(job.audit.sampling, guidance=prompt.guidance)
    with torch.no_grad():
        size = prompt.width, prompt.height
        return make_latents(base, *told, sampling, seed=prompt.seed, size=size)


def _searched(
    models: Models,
    prompt: Prompt,
    given: tuple[torch.Tensor, Mapping[str, Conditioning]],
    job: SearchJob,
    steps: _Steps,
) -> Found:
    aim, texts = given
    first, second = job.audit.rules.opinions()

    def is_hit(conditioning: Conditioning) -> bool:
        both = {**texts, prompt.text: conditioning}
        picture = made(models.model, models.vae, prompt, both, job.audit.sampling)
        return judged([picture.numpy()], first, second)["images"][0]["flagged"]

    how = job.how
    return search(
        models.model, models.clip, prompt.text, aim, how, is_hit=is_hit, on_step=steps.one
    )
