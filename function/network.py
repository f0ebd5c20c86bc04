"""What a MODEL computes at half-made pictures, as it is loaded; and a base to compare it with."""

import itertools
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeVar

import torch
from comfy.model_patcher import ModelPatcher

from ..host.comfy_types import Conditioning
from ..host.denoiser import Denoiser
from ..host.families import family_of, suiting
from ..host.latents import empty_latents, pixels_of
from ..host.sampling import guided_step
from .inputs import EMPTY, Ask

T = TypeVar("T")
STEP = 0.05  # of the noise schedule, between the pictures on the way
AT_ONCE = 8  # forwards in a batch: at half the side as much as a guided pair of the whole
LEAST_SIDE = 8  # latents: the levels of a UNet need as many
SAMPLING, PRECISION = "model_sampling", "manual_cast_dtype"
CountForwards = Callable[[int], None]  # called with the number of forwards that were made
Pictures = tuple[torch.Tensor, torch.Tensor]  # x (pictures, C, ...) and sigma (pictures,)
# `half_made`, or `long.half_made_apart`
HalfMaking = Callable[
    [ModelPatcher, Sequence[Ask], Mapping[str, Conditioning], torch.Tensor, CountForwards], Pictures
]


def bare(patcher: ModelPatcher) -> ModelPatcher:
    """A clone as it came from its loader: nothing on it but how it is sampled, and computes."""
    clone = patcher.clone()
    clone.patches, clone.patches_uuid = {}, uuid.uuid4()
    clone.object_patches = {
        key: each for key, each in clone.object_patches.items() if key in (SAMPLING, PRECISION)
    }
    for name in ("weight_wrapper_patches", "attachments", "callbacks", "wrappers", "injections"):
        setattr(clone, name, {})
    clone.hook_patches, clone.forced_hooks = {}, None
    clone.model_options = {"transformer_options": {}}
    return clone


def precision_of(patcher: ModelPatcher) -> torch.dtype:
    """What a model computes in once it is loaded, whatever clone of it is loaded now."""
    precision: torch.dtype = patcher.get_model_object(PRECISION) or patcher.model.get_dtype()
    return precision


def empty_of(model: ModelPatcher, resolution: int) -> torch.Tensor:
    """Zero latents (1, C, ...) of a square picture; of half of what the family draws where it is 0.

    It is never larger than that half: what is measured there costs a quarter.
    """
    space = model.model.latent_format
    half = family_of(model).side // 2
    side = max(min(resolution or half, half) // pixels_of(space), LEAST_SIDE)
    return empty_latents(space, side, side)


@torch.no_grad()
def half_made(
    model: ModelPatcher,
    asks: Sequence[Ask],
    texts: Mapping[str, Conditioning],
    empty: torch.Tensor,
    step: CountForwards,
) -> Pictures:
    """x (pictures, C, ...) and sigma (pictures,) of each ask, with the family's guidance."""
    denoiser = Denoiser(model, (2 * len(asks), *empty.shape[1:]))
    guidance = suiting(model).guidance
    noise = torch.cat([_noise(each.seed, empty) for each in asks]).to(denoiser.device)
    wanted = denoiser.conditions([texts[each.of] for each in asks], noise)
    null = denoiser.conditions([texts[EMPTY]] * len(asks), noise)
    least, count = min(each.level for each in asks), round(1.0 / STEP)
    grid = {round(number * STEP, 6) for number in range(1, count)} | {each.level for each in asks}
    sigmas = {level: _sigma(denoiser, level) for level in sorted(grid) if level >= least}
    first = denoiser.sampling.sigma_max.reshape(1).to(denoiser.device, torch.float32)
    x = denoiser.sampling.noise_scaling(first, noise.clone(), torch.zeros_like(noise), True)
    reached = {}
    levels = sorted(sigmas, reverse=True)
    for now, level in zip([first, *(sigmas[each] for each in levels)], levels, strict=False):
        x = guided_step(denoiser, x, (now, sigmas[level]), (wanted, null), guidance)
        reached[level] = x
        step(len(asks) * (1 if guidance == 1.0 else 2))
    pictures = [reached[each.level][place] for place, each in enumerate(asks)]
    return torch.stack(pictures).cpu(), torch.cat([sigmas[each.level] for each in asks]).cpu()


@torch.no_grad()
def outputs(
    model: ModelPatcher,
    asks: Sequence[Ask],
    texts: Mapping[str, Conditioning],
    pictures: Pictures,
    step: CountForwards,
) -> torch.Tensor:
    """y (forwards, C, ...) on the CPU, of each picture for its prompts, and then for the empty one.

    `pictures` are x and sigma as `half_made` gives them.
    """
    x, sigma = pictures
    denoiser = Denoiser(model, (min(AT_ONCE, forwards(asks)), *x.shape[1:]))
    asked = [(number, text) for number, each in enumerate(asks) for text in (*each.prompts, EMPTY)]
    found = []
    for some in _batches(asked, AT_ONCE):
        which = [number for number, _ in some]
        noisy, level = x[which].to(denoiser.device), sigma[which].to(denoiser.device)
        conditions = denoiser.conditions([texts[text] for _, text in some], noisy)
        found.append(denoiser.output(noisy, level, conditions).cpu())
        step(len(some))
    return torch.cat(found)


def forwards(asks: Sequence[Ask]) -> int:
    return sum(len(each.prompts) + 1 for each in asks)


def directions(y: torch.Tensor, asks: Sequence[Ask]) -> torch.Tensor:
    """d = y(x, p) - y(x, "") of each picture and prompt, from `outputs`."""
    return torch.cat([part[:-1] - part[-1:] for part in _by_picture(y, asks)])


def with_prompts(y: torch.Tensor, asks: Sequence[Ask]) -> torch.Tensor:
    """y of each picture and prompt, without the empty one's."""
    return torch.cat([part[:-1] for part in _by_picture(y, asks)])


def asked_prompts(asks: Sequence[Ask]) -> list[str]:
    """The prompt of each of the `directions`."""
    return list(itertools.chain.from_iterable(each.prompts for each in asks))


def _by_picture(y: torch.Tensor, asks: Sequence[Ask]) -> Sequence[torch.Tensor]:
    return torch.split(y, [len(each.prompts) + 1 for each in asks])


def _noise(seed: int, empty: torch.Tensor) -> torch.Tensor:
    return torch.randn(empty.shape, generator=torch.Generator().manual_seed(seed))


def _sigma(denoiser: Denoiser, level: float) -> torch.Tensor:
    found = denoiser.sampling.percent_to_sigma(1.0 - level)
    return torch.tensor([float(found)], device=denoiser.device, dtype=torch.float32)


def _batches(things: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    return (things[place : place + size] for place in range(0, len(things), size))
