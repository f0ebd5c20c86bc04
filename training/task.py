"""A task LoRA: trained apart from its safety modules, or beside them with the concept anchored."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import comfy.sd
import torch
from comfy.model_patcher import ModelPatcher

from ..host.comfy_types import Conditioning
from ..host.denoiser import Denoiser
from ..merge.entries import Task
from ..merge.merge import Merged, merge
from ..modules.files import LoraFile
from .data import Dataset
from .engine.adapters import Adapters
from .engine.batch import Batch, LossOf
from .engine.checkpoint import Progress
from .engine.ema import Ema
from .engine.job import Result, TrainingJob
from .engine.run import run
from .losses import Anchor, Denoising, Prior
from .settings import Settings
from .targets import Roles, target_layers

Texts = Mapping[str, Conditioning]


def train_task(
    model: ModelPatcher,
    dataset: Dataset,
    texts: Texts,
    settings: Settings,
    job: TrainingJob,
    *,
    safety: Sequence[LoraFile] = (),
    concepts: Sequence[str] = (),
    prior: Dataset | None = None,
) -> Result | None:
    """Train a task LoRA for a ComfyUI MODEL and write it, whole or not at all.

    `texts` holds the conditioning of every concept prompt, and of "" (the unconditional). In the
    mode `detached` the safety modules are not on the model; in `anchored` and `frozen` they are,
    frozen. They are never trained and never in the file. `prior` are pictures of what must stay as
    it is (prior preservation, Ruiz et al. 2022). Cancelling keeps what was trained. The model is
    given back as it was. Raises ValueError for a run that can't be.
    """
    check_mode(settings, safety, concepts)
    kind = TaskRun(dataset, texts, settings, safety, concepts, prior)
    result = run(model, kind, settings, job)
    warned = {"caption_warnings": kind.warnings} if kind.warnings else {}
    return result and replace(result, report=result.report | warned)


def check_mode(settings: Settings, safety: Sequence[LoraFile], concepts: Sequence[str]) -> None:
    """Raise ValueError for a safety mode that has not what it needs."""
    if settings.safety_mode != "detached" and not safety:
        raise ValueError(
            f"The safety mode {settings.safety_mode!r} needs a safety LoRA. Connect one, or choose"
            " detached."
        )
    if settings.safety_mode == "anchored" and not concepts:
        raise ValueError(
            "The safety mode 'anchored' needs prompts of the concept that the safety LoRA"
            " suppresses. Give concept_prompts."
        )


@dataclass(frozen=True)
class TaskRun:
    """The objective, layers and metadata of a task run; implements `Kind`."""

    dataset: Dataset
    texts: Texts
    settings: Settings
    safety: Sequence[LoraFile]
    concepts: Sequence[str]
    prior: Dataset | None
    role, saliency = "task", 1.0

    @property
    def held(self) -> Sequence[LoraFile]:
        return () if self.settings.safety_mode == "detached" else self.safety

    @property
    def buckets(self) -> Sequence[Sequence[int]]:
        return self.dataset.buckets

    @property
    def warnings(self) -> list[str]:
        """What to say of pictures without a caption."""
        return [*self.dataset.warnings, *(self.prior.warnings if self.prior else ())]

    @property
    def digests(self) -> str:
        return ",".join(sorted(module.sha256 for module in self.safety))

    @property
    def identity(self) -> str:
        return repr(
            (
                self.dataset.sha256,
                self.prior and self.prior.sha256,
                self.digests,
                tuple(self.concepts),
            )
        )

    @property
    def example(self) -> Conditioning:
        return self.dataset.conditions[0]

    def layers(self, network: torch.nn.Module, roles: Roles) -> list[str]:
        return target_layers(network, roles, self.settings.targets)

    def loss_of(self, denoiser: Denoiser, adapters: Adapters, ema: Ema | None) -> LossOf:
        """The loss of a batch: `task`, of its pictures, and if they are on `prior` and `anchor`."""
        task = Denoising(denoiser, self.dataset, self.settings)
        prior = Prior(denoiser, self.prior, self.settings) if self.prior is not None else None
        anchor = None
        if self.settings.safety_mode == "anchored":
            anchor = Anchor(denoiser, adapters, self.texts, self.concepts, self.settings)

        def loss_of(batch: Batch) -> dict[str, torch.Tensor]:
            drawn = task.drawn(batch.mine, batch)
            parts = {
                "task": task.loss(batch.mine, drawn),
                "prior": prior.of(batch) if prior is not None else None,
                "anchor": anchor.of(batch, drawn) if anchor is not None else None,
            }
            return {name: part for name, part in parts.items() if part is not None}

        return loss_of

    def metadata(self, progress: Progress) -> dict[str, str]:
        dataset, prior = self.dataset, self.prior
        about = {
            "pictures": len(dataset.latents),
            "dataset_sha256": dataset.sha256,
            "concepts": list(self.concepts),
        }
        if prior is not None:
            about |= {"prior_pictures": len(prior.latents), "prior_sha256": prior.sha256}
        metadata = {
            "msl.safety_mode": self.settings.safety_mode,
            "msl.training": self.settings.record(steps_done=progress.step, **about),
        }
        return metadata | ({"msl.safety_sha256": self.digests} if self.digests else {})

    def previewed(self, model: ModelPatcher, module: LoraFile | None) -> Merged:
        """The module on the model with its safety modules, or on the bare model if it has none."""
        if self.safety:
            return merge(model, self.safety, [Task(module)] if module else [])
        tensors = module.tensors if module else {}
        return Merged(comfy.sd.load_lora_for_models(model, None, tensors, 1.0, 0.0)[0], None, {})
