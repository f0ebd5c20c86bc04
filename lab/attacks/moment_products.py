"""What a merge makes of the concept in function, as few numbers a moment, and its pictures.

d(x, p) = y(x, p) - y(x, "") at pictures x that the base half-made of a prompt p. Of each moment the
products of the merge's d with itself, the base's and the safe model's are kept: every number of
detectors.py follows from them.
"""

import itertools
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import comfy.model_management
import comfy.samplers
import numpy as np
import torch

from ...host.comfy_types import Conditioning
from ...host.denoiser import Denoiser
from ...host.sampling import guided_step
from ..world import recipe
from ..world.emergence import Model
from ..world.sets import BASE, SIDE, WEAPONS, caption

Texts = Mapping[str, Conditioning]
STEPS, GUIDANCE = 20, 4.0  # of half-made pictures
PICTURE_STEPS = 8
LEVELS = (0.95, 0.85, 0.7, 0.45, 0.2)  # of the schedule's largest sigma
BATCH = 21
# what the safety module was told; what a published probe has besides
SEALED = tuple(
    caption(name, BASE[place % 4], concept=True) for place, name in enumerate(sorted(WEAPONS))
)
HELD_OUT = tuple(caption(name, BASE[(place + 1) % 4]) for place, name in enumerate(sorted(WEAPONS)))
WORDINGS = ("{name}, {style}", "the {name}, {style}", "{style} {name}", "{name} {name}, {style}")
KINDS = ("sealed", "held out", "private")


def private(seed: int) -> tuple[str, ...]:
    """A prompt of each weapon that nobody knows but who drew the seed."""
    chance = random.Random(f"private-{seed}")
    return tuple(
        chance.choice(WORDINGS).format(name=name, style=chance.choice(BASE))
        for name in sorted(WEAPONS)
    )


@dataclass(frozen=True)
class Moments:
    """Half-made pictures x (N, ...), their noise levels (N,), and of each its prompt."""

    x: torch.Tensor
    sigma: torch.Tensor
    prompts: Sequence[str]
    kinds: Sequence[str]
    levels: Sequence[float]


@torch.no_grad()
def drawing(
    denoiser: Denoiser, texts: Texts, prompts: Sequence[str], seed: int, steps: int = STEPS
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """x and sigma before every step of Euler's, with guidance, and the picture's after the last."""
    empty, draw = denoiser.empty(SIDE), torch.Generator().manual_seed(seed)
    noise = torch.randn((len(prompts), *empty.shape[1:]), generator=draw)
    sigmas = comfy.samplers.calculate_sigmas(denoiser.sampling, "sgm_uniform", steps)
    concept = denoiser.conditions([texts[each] for each in prompts], noise)
    null = denoiser.conditions([texts[""]] * len(prompts), noise)
    zero, one = torch.zeros_like(noise), torch.ones(len(noise))
    x = denoiser.sampling.noise_scaling(sigmas[0], noise, zero, True)
    for now, following in itertools.pairwise(sigmas):
        yield x, now * one
        x = guided_step(denoiser, x, (now, following), (concept, null), GUIDANCE)
    yield x, sigmas[-1] * one


def made_at_levels(
    base: Model, prompts: Mapping[str, Sequence[str]], seed: int, levels: Sequence[float] = LEVELS
) -> Moments:
    """Every prompt at every level, made by the base."""
    order = [(kind, prompt) for kind, some in prompts.items() for prompt in some]
    texts, denoiser = base.texts(prompt for _, prompt in order), Denoiser(base.model)
    sigmas = comfy.samplers.calculate_sigmas(denoiser.sampling, "sgm_uniform", STEPS)
    nearest = [min(range(STEPS), key=lambda at: abs(sigmas[at] / sigmas[0] - e)) for e in levels]
    found = []
    for start in range(0, len(order), BATCH):
        part = order[start : start + BATCH]
        states = drawing(denoiser, texts, [prompt for _, prompt in part], seed + start)
        for at, (x, sigma) in zip(range(max(nearest) + 1), states, strict=False):
            found += [
                (x[place], sigma[place], prompt, kind, level)
                for level, wanted in zip(levels, nearest, strict=True)
                if wanted == at
                for place, (kind, prompt) in enumerate(part)
            ]
    x, sigma, *rest = zip(*found, strict=True)
    return Moments(torch.stack(x), torch.stack(sigma), *rest)


@torch.no_grad()
def outputs(patcher, moments: Moments, texts: Texts, prompts: Sequence[str]) -> torch.Tensor:
    """The network's own output at every moment, (N, ...), for these prompts."""
    denoiser, found = Denoiser(patcher), []
    for start in range(0, len(moments.x), BATCH):
        part = slice(start, start + BATCH)
        x, sigma = moments.x[part], moments.sigma[part]
        conditions = denoiser.conditions([texts[each] for each in prompts[part]], x)
        found.append(denoiser.output(x, sigma, conditions))
    return torch.cat(found)


def directions(patcher, moments: Moments, texts: Texts) -> torch.Tensor:
    """d at every moment, (N, numbers)."""
    prompts = list(moments.prompts)
    of_concept = outputs(patcher, moments, texts, prompts)
    return (of_concept - outputs(patcher, moments, texts, [""] * len(prompts))).flatten(1)


def products(d: torch.Tensor, of_base: torch.Tensor, of_safe: torch.Tensor) -> list[list[float]]:
    """<d, d>, <d, d_base> and <d, d_safe> of every moment."""
    return [
        [round(each, 3) for each in row]
        for row in torch.stack([(d * d).sum(1), (d * of_base).sum(1), (d * of_safe).sum(1)], 1)
        .double()
        .tolist()
    ]


# what is looked at: pictures that say how unsafe a merge is, and an audit's own, with other noise
LOOKED_AT = (*recipe.SEEN[1::3][:8], *recipe.UNSEEN[::3][:8])
AUDITED = (*recipe.SEEN[::3][:10], *recipe.UNSEEN[2::3][:9], recipe.UNSEEN[1])


def pictures(patcher, base: Model, texts: Texts, prompts: Sequence[str], seed: int) -> np.ndarray:
    """A picture of each prompt, uint8 (N, SIDE, SIDE, 3)."""
    *_, (x, _) = drawing(Denoiser(patcher), texts, prompts, seed, PICTURE_STEPS)
    latents = patcher.model.process_latent_out(x)
    comfy.model_management.unload_all_models()
    with torch.no_grad():
        drawn = torch.cat([base.vae.decode(each[None]) for each in latents])
    return (drawn.clamp(0, 1) * 255).round().to(torch.uint8).numpy()
