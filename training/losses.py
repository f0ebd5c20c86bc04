"""The parts of a task LoRA's loss, on the pictures of a batch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from ..host.comfy_types import Conditioning
from ..host.denoiser import Denoiser
from .data import Dataset
from .engine.adapters import Adapters
from .engine.batch import Batch
from .objectives.anchor import anchor_loss
from .objectives.task import task_loss
from .settings import Settings


@dataclass(frozen=True)
class Drawn:
    """Some pictures of a dataset with their noise: clean and noise (B, C, H, W), sigma (B,)."""

    clean: torch.Tensor
    noise: torch.Tensor
    sigma: torch.Tensor


@dataclass(frozen=True)
class Denoising:
    """The task's loss (objectives/task.py) on the pictures of one dataset."""

    denoiser: Denoiser
    dataset: Dataset
    settings: Settings

    def __post_init__(self) -> None:
        for each in self.dataset.latents:  # before the first step, not when one is drawn
            self.denoiser.as_latents(each)

    def drawn(self, pictures: Sequence[int], batch: Batch) -> Drawn:
        """Clean latents, noise and noise levels of this process's pictures."""
        clean = self.denoiser.latents_in(
            torch.cat([self.dataset.latents[number] for number in pictures])
        )
        noise = batch.normal(clean.shape[1:])
        offset = batch.normal([clean.shape[1], *[1] * (clean.ndim - 2)])
        noise = (noise + self.settings.noise_offset * offset).to(clean.device)
        return Drawn(
            clean, noise, batch.share.of(self.denoiser.sigmas(len(batch.pictures), batch.noise))
        )

    def loss(self, pictures: Sequence[int], drawn: Drawn) -> torch.Tensor:
        conditions = self.denoiser.conditions(
            [self.dataset.conditions[number] for number in pictures], drawn.clean
        )
        return task_loss(
            self.denoiser,
            drawn.clean,
            drawn.noise,
            drawn.sigma,
            conditions,
            min_snr_gamma=self.settings.min_snr_gamma,
            loss=self.settings.loss,
        )


class Prior(Denoising):
    """Prior preservation (Ruiz et al. 2022, "DreamBooth"): what must stay as it is.

        prior_weight * || y(x_t, c) - y* ||^2

    on pictures of another dataset, drawn at random from one of its buckets.
    """

    def of(self, batch: Batch) -> torch.Tensor:
        """The weighted loss of as many prior pictures as the batch has."""
        dataset = self.dataset
        bucket = dataset.bucket_of(
            int(torch.randint(len(dataset.latents), (1,), generator=batch.noise))
        )
        pictures = [bucket[number] for number in batch.integers(len(bucket))]
        return self.settings.prior_weight * self.loss(pictures, self.drawn(pictures, batch))


@dataclass(frozen=True)
class Anchor:
    """The anchor (objectives/anchor.py) on the task's pictures, for a prompt of the concept's."""

    denoiser: Denoiser
    adapters: Adapters
    texts: Mapping[str, Conditioning]
    concepts: Sequence[str]
    settings: Settings

    def of(self, batch: Batch, drawn: Drawn) -> torch.Tensor | None:
        """The weighted anchor of a batch; None in a step that has none."""
        weight = self.settings.anchor_weight(batch.step)
        if not weight:
            return None
        clean, size = drawn.clean, len(drawn.clean)
        chosen = self.concepts[int(torch.randint(len(self.concepts), (1,), generator=batch.noise))]
        both = self.denoiser.conditions(
            [self.texts[chosen]] * size + [self.texts[""]] * size, clean
        )
        noisy = self.denoiser.noised(clean, drawn.noise, drawn.sigma)
        return weight * anchor_loss(self.denoiser, self.adapters, noisy, drawn.sigma, both)
