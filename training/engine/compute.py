"""One run of a closed form: what the text's readers get, its map, and the LoRA that holds it."""

import functools
import logging
from collections.abc import Sequence
from contextlib import nullcontext

import torch
from comfy.model_patcher import ModelPatcher

from ...host.denoiser import Denoiser
from ...host.lending import computing_in
from ..objectives.closed_form import left, sizes
from ..settings import Settings
from ..targets import count_roles, told
from .checkpoint import CheckpointError, Progress
from .edits import Edit, edits_of, metadata_of, told_of
from .groups import Group, groups_of, readers_of
from .job import Computed, Result, TrainingJob
from .looking import Looking
from .loop import Cancelled
from .output import check_room
from .starting import checkpoint_of
from .written import Learned, written

logger = logging.getLogger(__name__)


def compute(
    model: ModelPatcher, kind: Computed, settings: Settings, job: TrainingJob
) -> Result | None:
    """Compute a closed form, write the module whole or not at all, give the model back as it was.

    Gives None on all but the main process. `settings.steps` are the method's rounds. It takes
    seconds: nothing is kept of a run that was cancelled, which raises Cancelled. ValueError for a
    network that text enters by nothing linear, and where the formula changes nothing.
    """
    return written(model, kind, settings, job, _computed)


def _computed(model: ModelPatcher, kind: Computed, settings: Settings, job: TrainingJob) -> Learned:
    path, method = checkpoint_of(job.output), kind.method
    if path.exists():
        raise CheckpointError(
            f"{path}: this checkpoint is of a run that trained in steps, which {method.name} does"
            " not. Choose another name, or delete it and what it goes with."
        )
    patcher = computing_in(model, settings.precision)
    denoiser = Denoiser(patcher)
    roles, layers = denoiser.roles(kind.pairs[0][0]), readers_of(denoiser, kind)
    logger.info("%s edits %s", job.output.stem, told(layers, roles))
    groups = groups_of(denoiser, patcher, layers, kind)
    found = [each.sums.identity for each in groups]
    progress = Progress(losses=[_losses(groups, found)])

    @functools.lru_cache(maxsize=1)
    def edits(_step: int) -> list[Edit]:
        return edits_of(patcher, groups, found)

    def learned() -> dict[str, torch.Tensor]:
        every = edits(progress.step)
        check_room(path.parent, sum(each.count for each in every))
        return {key: value for each in every for key, value in each.tensors().items()}

    look_on = Looking(model, patcher, kind, settings, job, nullcontext, learned)
    rounds = [method.maps(each.sums) for each in groups]
    while look_on(progress) and job.on_step(progress) and progress.step < method.rounds:
        found = [next(each) for each in rounds]
        progress.step += 1
        progress.losses.append(_losses(groups, found))
    if progress.step < method.rounds:
        raise Cancelled("Cancelled before it was computed; nothing was written.")
    made = edits(progress.step)
    layers_of = count_roles([each.layer for each in made], roles)
    about = {"computed": told_of(made)}
    return Learned(progress, learned(), layers_of, metadata_of(made), about, first=0)


def _losses(groups: Sequence[Group], maps: Sequence[torch.Tensor]) -> dict[str, float]:
    """What is left of the concept's way to what it shall be as, and what moved of what stays.

    Both are squares, over all layers and tokens, as shares of what they were before.
    """
    apart, moved = map(
        sum, zip(*(left(e.sums, each) for e, each in zip(groups, maps, strict=True)), strict=True)
    )
    before, size = map(sum, zip(*(sizes(each.sums) for each in groups), strict=True))
    return {"erase": apart / before if before else 0.0, "retain": moved / size if size else 0.0}
