"""A task LoRA: trained apart from its safety modules, or beside them with their concept anchored."""

from collections.abc import Mapping, Sequence

import comfy.sd
import torch

from ..host.denoiser import Conditioning, Denoiser
from ..merge.entries import Task
from ..merge.merge import Merged, merge
from ..modules.files import Module
from .data import Dataset
from .engine.adapters import Adapters, target_layers
from .engine.checkpoint import Progress
from .engine.loop import Batch, LossOf
from .engine.run import Job, Kind, Result, run
from .objectives import anchor_loss, task_loss
from .settings import Settings

Texts = Mapping[str, Conditioning]


def train_task(
    model,
    dataset: Dataset,
    texts: Texts,
    settings: Settings,
    job: Job,
    safety: Sequence[Module] = (),
    concepts: Sequence[str] = (),
    prior: Dataset | None = None,
) -> Result | None:
    """Train a task LoRA for a ComfyUI MODEL and write it, whole or not at all.

    `texts` holds the conditioning of every concept prompt, and of "" (the unconditional). In the mode `detached` the
    safety modules are not on the model; in `anchored` and `frozen` they are, frozen. They are never trained and never in
    the file. `prior` are pictures of what must stay as it is (prior preservation, Ruiz et al. 2022). Cancelling keeps what
    was trained. The model is given back as it was. Raises ValueError for a run that can't be.
    """
    _check(settings, safety, concepts)
    digests = ",".join(sorted(module.sha256 for module in safety))
    kind = Kind(
        "task",
        layers=lambda network: target_layers(network, settings.targets),
        buckets=dataset.buckets,
        loss_of=lambda denoiser, adapters, ema: _loss(denoiser, adapters, dataset, prior, texts, settings, concepts),
        identity=repr((dataset.sha256, prior and prior.sha256, digests, tuple(concepts))),
        metadata=lambda progress: _metadata(dataset, prior, settings, digests, concepts, progress),
        previewed=lambda lent, module: _previewed(lent, module, safety),
        held=() if settings.safety_mode == "detached" else safety,
    )
    return run(model, kind, settings, job)


def _loss(
    denoiser: Denoiser,
    adapters: Adapters,
    dataset: Dataset,
    prior: Dataset | None,
    texts: Texts,
    settings: Settings,
    concepts: Sequence[str],
) -> LossOf:
    """The loss of one batch: `task`, the denoising loss of its pictures, and when they are on, `prior` and `anchor`."""

    def noised(source: Dataset, pictures: Sequence[int], batch: Batch) -> tuple[torch.Tensor, ...]:
        """Clean latents, noise and noise levels of this process's pictures."""
        clean = denoiser.latents_in(torch.cat([source.latents[number] for number in pictures]))
        noise = batch.normal(clean.shape[1:])
        offset = batch.normal([clean.shape[1], *[1] * (clean.ndim - 2)])
        noise = (noise + settings.noise_offset * offset).to(clean.device)
        return clean, noise, batch.share.of(denoiser.sigmas(len(batch.pictures), batch.noise))

    def denoising(source: Dataset, pictures: Sequence[int], drawn: tuple[torch.Tensor, ...]) -> torch.Tensor:
        conditions = denoiser.conditions([source.conditions[number] for number in pictures], drawn[0])
        return task_loss(denoiser, *drawn, conditions, settings.min_snr_gamma)

    def loss_of(batch: Batch) -> dict[str, torch.Tensor]:
        clean, noise, sigma = drawn = noised(dataset, batch.mine, batch)
        parts = {"task": denoising(dataset, batch.mine, drawn)}
        if prior is not None:
            bucket = prior.bucket_of(int(torch.randint(len(prior.latents), (1,), generator=batch.noise)))
            pictures = [bucket[number] for number in batch.integers(len(bucket))]
            parts["prior"] = settings.prior_weight * denoising(prior, pictures, noised(prior, pictures, batch))
        weight = settings.anchor_weight(batch.step) if settings.safety_mode == "anchored" else 0.0
        if weight:
            chosen = concepts[int(torch.randint(len(concepts), (1,), generator=batch.noise))]
            both = denoiser.conditions([texts[chosen]] * len(clean) + [texts[""]] * len(clean), clean)
            parts["anchor"] = weight * anchor_loss(denoiser, adapters, denoiser.noised(clean, noise, sigma), sigma, both)
        return parts

    return loss_of


def _check(settings: Settings, safety: Sequence[Module], concepts: Sequence[str]) -> None:
    if settings.safety_mode != "detached" and not safety:
        raise ValueError(f"The safety mode {settings.safety_mode!r} needs a safety module.")
    if settings.safety_mode == "anchored" and not concepts:
        raise ValueError("The safety mode 'anchored' needs prompts of the concept that the safety module suppresses.")


def _metadata(
    dataset: Dataset, prior: Dataset | None, settings: Settings, digests: str, concepts: Sequence[str], progress: Progress
) -> dict[str, str]:
    about = {"pictures": len(dataset.latents), "dataset_sha256": dataset.sha256, "concepts": list(concepts)}
    if prior is not None:
        about |= {"prior_pictures": len(prior.latents), "prior_sha256": prior.sha256}
    metadata = {
        "msl.safety_mode": settings.safety_mode,
        "msl.training": settings.record(steps_done=progress.step, **about),
    }
    return metadata | ({"msl.safety_sha256": digests} if digests else {})


def _previewed(model, module: Module | None, safety: Sequence[Module]) -> Merged:
    """The task module on the model with its safety modules, or on the bare model when it is trained without any."""
    if safety:
        return merge(model, safety, [Task(module)] if module else [])
    tensors = module.tensors if module else {}
    return Merged(comfy.sd.load_lora_for_models(model, None, tensors, 1.0, 0.0)[0], None, {})
