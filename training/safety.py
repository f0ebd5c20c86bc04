"""One safety LoRA run: erase a concept without data, hold other concepts still, seal the result."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch

from .adapters import Adapters, adapters_in
from .denoiser import Conditioning, Denoiser, check_unpatched
from .erasure import Ema, Erasure, esd_loss, half_made, layers_of, retain_loss, sdd_loss
from .loop import Checkpoint, Progress, train
from .output import resume_path, write_module
from .settings import Settings


def train_safety(
    model,
    texts: Mapping[str, Conditioning],
    concepts: Sequence[str],
    output: Path,
    settings: Settings,
    erasure: Erasure,
    retain: Sequence[str] = (),
    resolution: int = 512,
    save_every: int = 0,
    resume: bool = False,
    on_step: Callable[[Progress], bool] = lambda progress: True,
) -> Progress:
    """Train a safety LoRA for a ComfyUI MODEL and write it, sealed at strength 1.0, whole or not at all.

    `texts` holds the conditioning of every prompt in `concepts` and `retain`, and of "". The layers are the method's;
    `settings.targets` is not used. Cancelling keeps what was trained. The model is given back as it was.
    """
    if not concepts:
        raise ValueError("There is no concept prompt to erase.")
    check_unpatched(model)
    checkpoint_path = resume_path(output, resume)
    denoiser = Denoiser(model)
    network = denoiser.base.diffusion_model
    with adapters_in(network, layers_of(erasure.method, network), settings.adapter, settings.seed) as adapters:
        teacher = Ema(adapters, erasure.ema) if erasure.method == "sdd" else None
        identity = repr((erasure, tuple(concepts), tuple(retain), resolution))
        checkpoint = Checkpoint(checkpoint_path, save_every, identity, teacher.average if teacher else {})
        loss_of = _loss(denoiser, adapters, teacher, texts, concepts, retain, erasure, resolution)
        after_update = teacher.update if teacher else lambda: None
        progress = train(adapters, [range(len(concepts))], loss_of, settings, checkpoint, on_step, after_update)
        if teacher:
            with teacher.in_place():
                tensors = adapters.tensors()
        else:
            tensors = adapters.tensors()
    metadata = {
        "msl.base": type(model.model.model_config).__name__,
        "msl.strength": "1.0",
        "msl.concept": ", ".join(concepts),
        "msl.method": erasure.method,
        "msl.training": settings.record(
            erasure=vars(erasure), retain=list(retain), resolution=resolution, steps_done=progress.step
        ),
    }
    write_module(output, tensors, metadata, "safety")
    if progress.step == settings.steps:
        checkpoint_path.unlink()
    return progress


def _loss(
    denoiser: Denoiser,
    adapters: Adapters,
    teacher: Ema | None,
    texts: Mapping[str, Conditioning],
    concepts: Sequence[str],
    retain: Sequence[str],
    erasure: Erasure,
    resolution: int,
) -> Callable[[Sequence[int], torch.Generator], torch.Tensor]:
    """The loss of one batch of concept prompts, on pictures half-made by the student (ESD) or its teacher (SDD)."""

    def loss_of(batch: Sequence[int], generator: torch.Generator) -> torch.Tensor:
        empty = denoiser.empty(resolution)
        noise = torch.randn(len(batch), *empty.shape[1:], generator=generator).to(empty.device)
        concept = denoiser.conditions([texts[concepts[number]] for number in batch], noise)
        null = denoiser.conditions([texts[""]] * len(batch), noise)
        if teacher is None:
            noisy, sigma = half_made(denoiser, noise, concept, null, erasure, generator)
            loss = esd_loss(denoiser, adapters, noisy, sigma, concept, null, erasure.eta)
        else:
            with teacher.in_place():
                noisy, sigma = half_made(denoiser, noise, concept, null, erasure, generator)
            loss = sdd_loss(denoiser, noisy, sigma, concept, null)
        if retain:
            chosen = torch.randint(len(retain), (len(batch),), generator=generator).tolist()
            others = denoiser.conditions([texts[retain[number]] for number in chosen], noise)
            loss = loss + retain_loss(denoiser, adapters, noisy, sigma, others)
        return loss

    return loss_of
