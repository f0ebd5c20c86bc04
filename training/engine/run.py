"""One run of optimizer steps, for a safety or a task LoRA: train, look, and write what it gave."""

import contextlib
import logging
from collections.abc import Mapping

import torch
from comfy.model_patcher import ModelPatcher

from ...host.denoiser import Denoiser
from ...host.gradients import NoGradient, go_back, kept, recomputing, writes_over
from ...host.lending import computing_in
from ...host.sampling import out_of_memory
from ...merge.merge import merge
from ...options.words import series
from ..objectives import METHODS
from ..objectives.closed_form import ClosedForm
from ..settings import Settings
from ..targets import check_layers, count_roles, told
from .adapters import Adapters, adapters_in, weight_count
from .checkpoint import Checkpoint, Progress
from .ema import Ema
from .job import Kind, Result, TrainingJob
from .looking import Looking
from .loop import Cancelled, TrainingError, train
from .output import check_room
from .saliency import losses_of, narrow
from .starting import checkpoint_of
from .written import Learned, written

logger = logging.getLogger(__name__)


def run(model: ModelPatcher, kind: Kind, settings: Settings, job: TrainingJob) -> Result | None:
    """Train, write the module whole or not at all, and give the model back as it was.

    Gives None on all but the main process. Raises TrainingError when memory does not suffice or the
    loss is not finite; the last checkpoint is kept then.
    """
    try:
        return written(model, kind, settings, job, _trained)
    except RuntimeError as error:
        if not out_of_memory(error):
            raise
        raise TrainingError(
            "Out of memory. Turn on gradient_checkpointing, or use a smaller batch, smaller"
            " pictures or a lower rank. The last checkpoint is kept."
            f" ({str(error).splitlines()[0]})"
        ) from error


def _trained(model: ModelPatcher, kind: Kind, settings: Settings, job: TrainingJob) -> Learned:
    """Where the run stood, what it learned, and in how many layers of each role."""
    path = checkpoint_of(job.output)
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
        stack.enter_context(_way_back(denoiser, adapters, kind, settings))
        ema = Ema(adapters, settings.ema) if settings.ema else None
        loss_of = kind.loss_of(denoiser, adapters, ema)
        scaled = denoiser.base.get_dtype_inference() == torch.float16
        masks: Mapping[str, torch.Tensor] = {}
        if kind.saliency < 1.0:
            losses = losses_of(loss_of, kind.buckets, settings)
            masks = narrow(adapters, losses, kind.saliency, job.share, scaled=scaled)
            if ema:
                ema.restart()
        changing = {**(ema.average if ema else {}), **masks}
        checkpoint = Checkpoint(path, job.save_every, kind.identity, changing)

        def learned() -> Mapping[str, torch.Tensor]:
            with ema.in_place() if ema else contextlib.nullcontext():
                return adapters.tensors()

        look_on = Looking(model, patcher, kind, settings, job, adapters.out, learned)

        def on_step(progress: Progress) -> bool:
            return look_on(progress) and job.on_step(progress)

        progress = train(
            adapters,
            kind.buckets,
            loss_of,
            settings,
            checkpoint,
            on_step=on_step,
            after_update=ema.update if ema else lambda: None,
            share=job.share,
            scaled=scaled,
        )
        if progress.step == 0:
            raise Cancelled("Training was cancelled before its first step; nothing was written.")
        return Learned(progress, learned(), count_roles(layers, roles))


def _way_back(
    denoiser: Denoiser, adapters: Adapters, kind: Kind, settings: Settings
) -> contextlib.AbstractContextManager[object]:
    """A block in which gradients go through the network, which is tried on a small picture first.

    With gradient checkpointing nothing but the blocks' inputs is kept in the trial either. Raises
    for a network without gradients.
    """
    network, parameters = denoiser.base.diffusion_model, list(adapters.parameters.values())

    def output() -> torch.Tensor:
        return denoiser.tried(kind.example)

    try:
        if not settings.gradient_checkpointing:
            return kept(writes_over(output, parameters))
        with recomputing(network):
            go_back(output, parameters)
        return recomputing(network)
    except NoGradient as error:
        others = [name for name, each in METHODS.items() if isinstance(each, ClosedForm)]
        way = f"The methods {series(others)} need none. " if kind.role == "safety" else ""
        raise TrainingError(
            f"{type(denoiser.base).__name__} models can't be trained in ComfyUI: no gradient goes"
            f" through their network ({error}). {way}Their LoRAs can be merged and locked."
        ) from error
