"""Previews of a run: when they are due, and what they are made with."""

import contextlib
import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import comfy.model_management
import torch
from comfy.model_patcher import ModelPatcher

from ...host import names
from ...modules.files import LoraFile
from ..settings import Settings
from .checkpoint import Progress
from .job import TrainingJob, Written
from .previews import look


@dataclass(frozen=True)
class Looking:
    """Previews when due, made with the module merged as its file will be.

    `aside` takes what trains out of the network for a block, `learned` gives its tensors.
    """

    model: ModelPatcher
    patcher: ModelPatcher
    kind: Written
    settings: Settings
    job: TrainingJob
    aside: Callable[[], contextlib.AbstractContextManager[None]]
    learned: Callable[[], Mapping[str, torch.Tensor]]

    def __call__(self, progress: Progress) -> bool:
        """Look, if it is time; False when that was cancelled."""
        job = self.job
        if (
            job.previews is None
            or not job.share.is_main
            or not job.previews.is_due(progress.step, self.settings.steps)
        ):
            return True
        module = self._module() if progress.step else None
        with self.aside():
            comfy.model_management.unload_model_and_clones(self.patcher)
            try:
                made = functools.partial(self.kind.previewed, self.model, module)
                progress.previews.append(look(made, job.previews, progress.step, job.on_preview))
            except comfy.model_management.InterruptProcessingException:
                return False
            finally:
                comfy.model_management.unload_model_and_clones(self.patcher)
                comfy.model_management.load_models_gpu(
                    [self.patcher], memory_required=1e20, force_full_load=True
                )
        return True

    def _module(self) -> LoraFile:
        """What was learned so far, as its file will be."""
        tensors = names.in_ecosystem_names(self.learned(), self.model.model.model_config)
        return LoraFile(
            self.job.output.name, self.kind.role, "being trained", {"msl.strength": "1.0"}, tensors
        )
