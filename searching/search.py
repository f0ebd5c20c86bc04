"""Words that bring a picture back, for one prompt (UnlearnDiffAtk).

Zhang et al. 2024, "To Generate or Not? Safety-Driven Unlearned Diffusion Models Are Still Easy to
Generate Unsafe Images", arXiv 2310.11868: a prefix p before the prompt c that lowers the denoising
loss of the model y that is measured, on a picture x_0 that shows what was taken away,

    min_p || y(x_t, [p, c]) - y*(x_0, t) ||^2

at evenly spaced noise levels, one after the other, from little noise to much, with fresh noise in
every iteration. Nothing of the model that drew x_0 is used but that picture.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from comfy.model_patcher import ModelPatcher

from ..host.comfy_types import Clip, Conditioning
from ..host.denoiser import Denoiser
from ..host.gradients import HALF, kept, still
from ..host.prefixes import Prefix, encoders_of, vocabulary, with_prefix
from ..options.errors import PackError
from ..training.objectives.task import task_loss
from .kinds import KINDS, Chance
from .settings import Searching


class SearchError(PackError, ValueError):
    """A search that can't go on; the message says where."""


@dataclass(frozen=True)
class Found:
    """What a search ended with: rows before the prompt, and their tokens if they are of any.

    `losses` has the mean loss of each noise level that was tried, none where nothing learns, `hit`
    whether the last picture was flagged.
    """

    prefix: Prefix
    tokens: tuple[int, ...]
    losses: tuple[float, ...]
    hit: bool


def search(
    model: ModelPatcher,
    clip: Clip,
    text: str,
    picture: torch.Tensor,
    how: Searching,
    *,
    is_hit: Callable[[Conditioning], bool],
    on_step: Callable[[], None] = lambda: None,
) -> Found:
    """Search words before one prompt, on the model that is measured.

    `picture` is the target's latents (1, C, ...), as the host's sampler gives them. `is_hit` says
    whether the picture of a conditioning is flagged. Nothing in the models changes. Raises
    SearchError for a loss that is not a number, and for a prefix that no gradient reaches.
    """
    encoders = encoders_of(clip)
    vocabularies = {name: vocabulary(each) for name, each in encoders.items()}
    rows = KINDS[how.kind](vocabularies, how.length, how.search_seed)
    draw = torch.Generator().manual_seed(how.search_seed)
    losses, hit = [], False
    for level in range(how.levels):
        rows.begin()
        found = []
        with still(model.model, clip.cond_stage_model), torch.enable_grad():
            denoiser = Denoiser(model)
            clean = denoiser.latents_in(picture)
            sigma = _sigma(denoiser, level, how.levels)
            for _ in range(how.iterations if rows.values else 0):
                noise = torch.randn(clean.shape, generator=draw).to(clean)
                with kept(True):
                    conditioning = with_prefix(clip, text, rows.rows())
                    about = clean, noise, sigma
                    found.append(_stepped(denoiser, rows, about, conditioning))
                on_step()
        if found:
            losses.append(sum(found) / len(found))
        with torch.no_grad():
            hit = is_hit(with_prefix(clip, text, rows.found()))
        if hit:
            break
    return Found(rows.found(), tuple(rows.tokens()), tuple(losses), hit)


def slopes_of(
    denoiser: Denoiser,
    rows: Chance,
    about: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
    conditioning: Conditioning,
) -> tuple[float, tuple[torch.Tensor, ...]]:
    """The loss on clean latents, noise and noise level, and its gradients to `rows.values`."""
    clean, noise, sigma = about
    conditions = denoiser.conditions([conditioning], clean)
    loss = task_loss(denoiser, clean, noise, sigma, conditions)
    scale = HALF if denoiser.base.get_dtype_inference() == torch.float16 else 1.0
    try:
        slopes = torch.autograd.grad(loss * scale, rows.values)
    except RuntimeError as error:
        if "does not require grad" not in str(error) and "not have been used" not in str(error):
            raise
        raise SearchError("no gradient of the loss reaches the words before the prompt") from error
    return loss.item(), tuple(each / scale for each in slopes)


def _stepped(
    denoiser: Denoiser,
    rows: Chance,
    about: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
    conditioning: Conditioning,
) -> float:
    """One step of the search; the loss before it."""
    loss, slopes = slopes_of(denoiser, rows, about, conditioning)
    if not (math.isfinite(loss) and all(each.isfinite().all() for each in slopes)):
        raise SearchError(
            f"the loss at noise level {about[2].item():.3g} is {loss}, or its gradient not finite"
        )
    if not any(each.any() for each in slopes):
        raise SearchError("no gradient of the loss reaches the words before the prompt")
    rows.step(slopes)
    return loss


def _sigma(denoiser: Denoiser, level: int, levels: int) -> torch.Tensor:
    """The noise level (1,) in the middle of one of `levels` parts of the model's own, from low."""
    table = denoiser.sampling.sigmas
    place = int((level + 0.5) * len(table) / levels)
    return table[place : place + 1].to(denoiser.device, torch.float32)
