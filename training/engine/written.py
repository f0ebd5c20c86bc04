"""What every run does around what it learns: lend the model, write, report, give it back."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from comfy.model_patcher import ModelPatcher

from ...host import names
from ...host.lending import check_unpatched, lent
from ...options.words import amount
from ...storage.names import valid
from ..settings import Settings
from .charts import loss_plot
from .checkpoint import Progress
from .job import Result, TrainingJob, Written
from .output import metadata_of, report_of, write_module
from .starting import checkpoint_of, starting


@dataclass(frozen=True)
class Learned:
    """Where a run stood, its tensors by the network's names, in how many layers of each role.

    `metadata` and `report` are what else its file and report say; the first losses are those of
    step `first`.
    """

    progress: Progress
    tensors: Mapping[str, torch.Tensor]
    layers: Mapping[str, int]
    metadata: Mapping[str, str] = field(default_factory=dict)
    report: Mapping[str, Any] = field(default_factory=dict)
    first: int = 1


Run = TypeVar("Run", bound=Written)
Learn = Callable[[ModelPatcher, Run, Settings, TrainingJob], Learned]


def written(
    model: ModelPatcher, kind: Run, settings: Settings, job: TrainingJob, learn: Learn[Run]
) -> Result | None:
    """Learn, write the module whole or not at all, and give the model back as it was.

    Gives None on all but the main process.
    """
    check_unpatched(model)
    job.share.check(settings.batch_size)
    with starting(job.output, settings, resume=job.resume, share=job.share):
        path, start = checkpoint_of(job.output), time.monotonic()
        goes_on = job.output.exists()
        if not job.resume:
            path.unlink(missing_ok=True)
        with lent(model) as own:
            found = learn(own, kind, settings, job)
            tensors = names.in_ecosystem_names(found.tensors, model.model.model_config)
        if not job.share.is_main:
            return None
        progress, title = found.progress, valid(job.output.stem)
        metadata = {**metadata_of(model, settings, title, progress), **kind.metadata(progress)}
        metadata |= found.metadata
        module = write_module(job.output, tensors, metadata, kind.role, overwrite=goes_on)
        if progress.step == settings.steps:
            path.unlink(missing_ok=True)
        said = f"{title}: {progress.step} of {amount(settings.steps, 'step')}"
        plot = loss_plot(progress.losses, progress.previews, said, found.first)
        report = report_of(module, progress, settings, time.monotonic() - start)
        more = {"layers": dict(found.layers), **found.report}
        return Result(module, progress, plot, report | more)
