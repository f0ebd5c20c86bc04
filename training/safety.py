"""A safety LoRA: erase a concept without data, hold other concepts still, seal the result."""

import dataclasses
from collections.abc import Mapping, Sequence

import torch

from ..host.denoiser import Conditioning, Denoiser
from ..merge.merge import Merged, merge
from ..modules.files import Module, prompts_text
from .engine.adapters import Adapters
from .engine.checkpoint import Progress
from .engine.ema import Ema
from .engine.loop import Batch, LossOf
from .engine.run import Job, Kind, Result, run
from .erasure import Erasure, esd_loss, half_made, layers_of, retain_loss, sdd_loss
from .settings import Settings

Texts = Mapping[str, Conditioning]


def train_safety(
    model,
    texts: Texts,
    concepts: Sequence[str],
    settings: Settings,
    erasure: Erasure,
    job: Job,
    retain: Sequence[str] = (),
    resolution: int = 512,
) -> Result | None:
    """Train a safety LoRA for a ComfyUI MODEL and write it, sealed at strength 1.0, whole or not at all.

    `texts` holds the conditioning of every prompt in `concepts` and `retain`, and of "". Layers and moving average are the
    method's; `settings.targets` is not used. Cancelling keeps what was trained. The model is given back as it was.
    """
    if not concepts:
        raise ValueError("There is no concept prompt to erase.")
    if erasure.method == "sdd":
        settings = dataclasses.replace(settings, ema=erasure.ema)  # the teacher is what is saved

    def metadata(progress: Progress) -> dict[str, str]:
        about = {"erasure": vars(erasure), "concepts": list(concepts), "retain": list(retain), "resolution": resolution}
        return {
            "msl.strength": "1.0",
            "msl.concept": ", ".join(concepts),
            "msl.prompts": prompts_text(concepts),
            "msl.method": erasure.method,
            "msl.training": settings.record(steps_done=progress.step, **about),
        }

    kind = Kind(
        "safety",
        layers=lambda network: layers_of(erasure.method, network),
        buckets=[range(len(concepts))],
        loss_of=lambda denoiser, adapters, ema: _loss(denoiser, adapters, ema, texts, concepts, retain, erasure, resolution),
        identity=repr((erasure, tuple(concepts), tuple(retain), resolution)),
        metadata=metadata,
        previewed=_previewed,
    )
    return run(model, kind, settings, job)


def _loss(
    denoiser: Denoiser,
    adapters: Adapters,
    teacher: Ema | None,
    texts: Texts,
    concepts: Sequence[str],
    retain: Sequence[str],
    erasure: Erasure,
    resolution: int,
) -> LossOf:
    """The loss of one batch of concept prompts, on pictures half-made by the student (ESD) or its teacher (SDD)."""

    def loss_of(batch: Batch) -> dict[str, torch.Tensor]:
        empty = denoiser.empty(resolution)
        noise = batch.normal(empty.shape[1:]).to(empty.device)
        concept = denoiser.conditions([texts[concepts[number]] for number in batch.mine], noise)
        null = denoiser.conditions([texts[""]] * len(noise), noise)
        if erasure.method == "sdd":
            with teacher.in_place():
                noisy, sigma = half_made(denoiser, noise, concept, null, erasure, batch.noise)
            parts = {"erase": sdd_loss(denoiser, noisy, sigma, concept, null)}
        else:
            noisy, sigma = half_made(denoiser, noise, concept, null, erasure, batch.noise)
            parts = {"erase": esd_loss(denoiser, adapters, noisy, sigma, concept, null, erasure.eta)}
        if retain:
            others = denoiser.conditions([texts[retain[number]] for number in batch.integers(len(retain))], noise)
            parts["retain"] = retain_loss(denoiser, adapters, noisy, sigma, others)
        return parts

    return loss_of


def _previewed(model, module: Module | None) -> Merged:
    """The safe base; before the first step, the base."""
    return merge(model, [module]) if module else Merged(model.clone(), None, {})
