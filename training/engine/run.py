"""One run of a safety or task LoRA: lend the model, train, look, write, report, give it back."""

import contextlib
import functools
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import comfy.model_management
import torch
from comfy.model_patcher import ModelPatcher

from ...host import names
from ...host.comfy_types import Conditioning
from ...host.denoiser import Denoiser
from ...host.gradients import NoGradient, go_back, kept, recomputing, writes_over
from ...host.lending import check_unpatched, computing_in, lent
from ...host.sampling import out_of_memory
from ...merge.merge import merge
from ...modules.files import LoraFile
from ...options.words import amount
from ...storage.names import valid
from ..settings import Settings
from ..targets import check_layers, count_roles, told
from .adapters import Adapters, adapters_in, weight_count
from .charts import loss_plot
from .checkpoint import Checkpoint, Progress
from .ema import Ema
from .job import Kind, Result, TrainingJob
from .loop import Cancelled, TrainingError, train
from .output import check_room, metadata_of, report_of, write_module
from .previews import look
from .starting import checkpoint_of, starting

logger = logging.getLogger(__name__)


def run(model: ModelPatcher, kind: Kind, settings: Settings, job: TrainingJob) -> Result | None:
    """Train, write the module whole or not at all, and give the model back as it was.

    Gives None on all but the main process. Raises TrainingError when memory does not suffice or the
    loss is not finite; the last checkpoint is kept then.
    """
    check_unpatched(model)
    job.share.check(settings.batch_size)
    with starting(job.output, settings, resume=job.resume, share=job.share):
        return _run(model, kind, settings, job)


def _run(model: ModelPatcher, kind: Kind, settings: Settings, job: TrainingJob) -> Result | None:
    path, start = checkpoint_of(job.output), time.monotonic()
    goes_on = job.output.exists()
    if not job.resume:
        path.unlink(missing_ok=True)
    try:
        with lent(model) as own:
            progress, tensors, layers = _trained(own, kind, settings, job, path)
            tensors = names.in_ecosystem_names(tensors, model.model.model_config)
    except RuntimeError as error:
        if not out_of_memory(error):
            raise
        raise TrainingError(
            "Out of memory. Turn on gradient_checkpointing, or use a smaller batch, smaller"
            " pictures or a lower rank. The last checkpoint is kept."
            f" ({str(error).splitlines()[0]})"
        ) from error
    if progress.step == 0:
        raise Cancelled("Training was cancelled before its first step; nothing was written.")
    if not job.share.is_main:
        return None
    title = valid(job.output.stem)
    metadata = {**metadata_of(model, settings, title, progress), **kind.metadata(progress)}
    module = write_module(job.output, tensors, metadata, kind.role, overwrite=goes_on)
    if progress.step == settings.steps:
        path.unlink()
    plot = loss_plot(
        progress.losses,
        progress.previews,
        f"{title}: {progress.step} of {amount(settings.steps, 'step')}",
    )
    report = report_of(module, progress, settings, time.monotonic() - start)
    return Result(module, progress, plot, report | {"layers": layers})


def _trained(
    model: ModelPatcher, kind: Kind, settings: Settings, job: TrainingJob, path: Path
) -> tuple[Progress, Mapping[str, torch.Tensor], dict[str, int]]:
    """Where the run stood, what it learned, and in how many layers of each role."""
    patcher = computing_in(
        merge(model, kind.held).model if kind.held else model, settings.precision
    )
    denoiser = Denoiser(patcher)
    network = denoiser.base.diffusion_model
    roles = denoiser.roles(kind.example)
    layers = kind.layers(network, roles)
    check_layers(layers, roles)
    check_room(path.parent, weight_count(network, layers, settings.adapter))
    logger.info("%s trains %s", job.output.stem, told(layers, roles))
    with contextlib.ExitStack() as stack:
        adapters = stack.enter_context(
            adapters_in(network, layers, settings.adapter, settings.seed)
        )
        stack.enter_context(_way_back(denoiser, adapters, kind.example, settings))
        ema = Ema(adapters, settings.ema) if settings.ema else None
        checkpoint = Checkpoint(path, job.save_every, kind.identity, ema.average if ema else {})

        def learned() -> Mapping[str, torch.Tensor]:
            with ema.in_place() if ema else contextlib.nullcontext():
                return adapters.tensors()

        look_on = Looking(model, patcher, kind, settings, job, adapters, learned)

        def on_step(progress: Progress) -> bool:
            return look_on(progress) and job.on_step(progress)

        progress = train(
            adapters,
            kind.buckets,
            kind.loss_of(denoiser, adapters, ema),
            settings,
            checkpoint,
            on_step=on_step,
            after_update=ema.update if ema else lambda: None,
            share=job.share,
            scaled=denoiser.base.get_dtype_inference() == torch.float16,
        )
        return progress, learned(), count_roles(layers, roles)


def _way_back(
    denoiser: Denoiser, adapters: Adapters, example: Conditioning, settings: Settings
) -> contextlib.AbstractContextManager[object]:
    """A block in which gradients go through the network, which is tried on a small picture first.

    With gradient checkpointing nothing but the blocks' inputs is kept in the trial either. Raises
    for a network without gradients.
    """
    network, parameters = denoiser.base.diffusion_model, list(adapters.parameters.values())

    def output() -> torch.Tensor:
        return denoiser.tried(example)

    try:
        if not settings.gradient_checkpointing:
            return kept(writes_over(output, parameters))
        with recomputing(network):
            go_back(output, parameters)
        return recomputing(network)
    except NoGradient as error:
        raise TrainingError(
            f"{type(denoiser.base).__name__} models can't be trained in ComfyUI: no gradient goes"
            f" through their network ({error}). Their LoRAs can be merged and locked."
        ) from error


@dataclass(frozen=True)
class Looking:
    """Previews when due, made with the adapters out and the module merged as its file will be."""

    model: ModelPatcher
    patcher: ModelPatcher
    kind: Kind
    settings: Settings
    job: TrainingJob
    adapters: Adapters
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
        for value in self.adapters.parameters.values():
            value.grad = None
        module = self._module() if progress.step else None
        with self.adapters.out():
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
