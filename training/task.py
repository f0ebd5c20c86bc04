"""One task LoRA run: the model with or without its safety module, the data, the loop, and the file at the end."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch

from ..modular.files import Module
from ..modular.merge import merge
from .adapters import Adapters, adapters_in, target_layers
from .data import Dataset
from .denoiser import Conditioning, Denoiser, check_unpatched
from .loop import Checkpoint, Progress, train
from .objectives import anchor_loss, task_loss
from .output import resume_path, write_module
from .settings import Settings


def train_task(
    model,
    dataset: Dataset,
    texts: Mapping[str, Conditioning],
    output: Path,
    settings: Settings,
    safety: Module | None = None,
    concepts: Sequence[str] = (),
    save_every: int = 0,
    resume: bool = False,
    on_step: Callable[[Progress], bool] = lambda progress: True,
) -> Progress:
    """Train a task LoRA for a ComfyUI MODEL and write it to `output`, whole or not at all.

    `texts` holds the conditioning of every caption, of every concept prompt, and of "" (the unconditional). In the mode
    `detached` the safety module is not on the model; in `anchored` and `frozen` it is, frozen. It is never trained and
    never in the file. Cancelling (`on_step` gives False) keeps what was trained. The model is given back as it was.
    """
    _check(settings, safety, concepts)
    check_unpatched(model)
    identity = repr((dataset.sha256, None if safety is None else safety.sha256, tuple(concepts)))
    checkpoint = Checkpoint(resume_path(output, resume), save_every, identity)
    if settings.safety_mode != "detached":
        model = merge(model, [safety]).model
    denoiser = Denoiser(model)
    network = denoiser.base.diffusion_model
    with adapters_in(network, target_layers(network, settings.targets), settings.adapter, settings.seed) as adapters:
        loss_of = _loss(denoiser, adapters, dataset, texts, settings, concepts)
        progress = train(adapters, dataset.buckets, loss_of, settings, checkpoint, on_step)
        tensors = adapters.tensors()
    write_module(output, tensors, _metadata(model, dataset, settings, safety, concepts, progress), "task")
    if progress.step == settings.steps:
        checkpoint.path.unlink()
    return progress


def _loss(
    denoiser: Denoiser,
    adapters: Adapters,
    dataset: Dataset,
    texts: Mapping[str, Conditioning],
    settings: Settings,
    concepts: Sequence[str],
) -> Callable[[Sequence[int], torch.Generator], torch.Tensor]:
    """The loss of one batch: its pictures' denoising loss, and in `anchored` the anchor for one concept prompt."""

    def loss_of(batch: Sequence[int], generator: torch.Generator) -> torch.Tensor:
        clean = denoiser.latents_in(torch.cat([dataset.latents[number] for number in batch]))
        noise = torch.randn(clean.shape, generator=generator)
        offset = torch.randn(*clean.shape[:2], *[1] * (clean.ndim - 2), generator=generator)
        noise = (noise + settings.noise_offset * offset).to(clean.device)
        sigma = denoiser.sigmas(len(batch), generator)
        conditions = denoiser.conditions([texts[dataset.captions[number]] for number in batch], clean)
        loss = task_loss(denoiser, clean, noise, sigma, conditions, settings.min_snr_gamma)
        if settings.safety_mode != "anchored":
            return loss
        chosen = int(torch.randint(len(concepts), (1,), generator=generator))
        noisy = denoiser.noised(clean, noise, sigma)
        pair = (denoiser.conditions([texts[prompt]] * len(batch), clean) for prompt in (concepts[chosen], ""))
        return loss + settings.anchor_lambda * anchor_loss(denoiser, adapters, noisy, sigma, *pair)

    return loss_of


def _check(settings: Settings, safety: Module | None, concepts: Sequence[str]) -> None:
    if settings.safety_mode != "detached" and safety is None:
        raise ValueError(f"The safety mode {settings.safety_mode!r} needs a safety module.")
    if settings.safety_mode == "anchored" and not concepts:
        raise ValueError("The safety mode 'anchored' needs prompts of the concept that the safety module suppresses.")


def _metadata(model, dataset: Dataset, settings: Settings, safety: Module | None, concepts, progress: Progress) -> dict:
    metadata = {
        "msl.base": type(model.model.model_config).__name__,
        "msl.safety_mode": settings.safety_mode,
        "msl.training": settings.record(
            steps_done=progress.step, pictures=len(dataset.captions), dataset_sha256=dataset.sha256, concepts=list(concepts)
        ),
    }
    return metadata if safety is None else metadata | {"msl.safety_sha256": safety.sha256}
