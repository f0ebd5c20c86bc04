"""Train the base: rectified flow on latents of the base's sets (Esser et al., arXiv 2403.03206).

Captions are left out in a tenth of the cases, for guidance, and what is kept is the running mean of
the weights.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from . import network
from .resumable import Kept
from .sets import BASE, CONCEPT, WEAPONS, caption


@dataclass(frozen=True)
class Pretraining:
    """Every setting of the base's training."""

    steps: int = 4000
    rate: float = 1e-3
    batch: int = 32
    warm: int = 100  # steps in which the rate rises
    ema: float = 0.998
    dropped: float = 0.1  # captions left out
    weapons: float = 2.0  # how often a weapon is drawn, beside a harmless name
    variants: int = 12  # of each picture: moved by up to SHIFT pixels
    seed: int = 0


SHIFT = 3


def variants(picture: np.ndarray, count: int, draw: np.random.Generator) -> list[np.ndarray]:
    """A picture and moved copies of it, white where it moved away."""
    side, found = len(picture), [picture]
    framed = np.pad(picture, ((SHIFT, SHIFT), (SHIFT, SHIFT), (0, 0)), constant_values=255)
    for _ in range(count - 1):
        y, x = draw.integers(0, 2 * SHIFT + 1, 2)
        found.append(framed[y : y + side, x : x + side])
    return found


def encoded(vae, pictures: dict[str, dict[str, np.ndarray]], settings: Pretraining) -> dict:
    """(name, style) -> latents as the diffusion model sees them (variants, 4, h, w)."""
    draw, found = np.random.default_rng(settings.seed), {}
    for style in BASE:
        for name, picture in pictures[style].items():
            several = torch.from_numpy(np.stack(variants(picture, settings.variants, draw)))
            with torch.no_grad():
                found[name, style] = vae.taesd_encoder(several.permute(0, 3, 1, 2).float() / 255)
    return found


def words(name: str, style: str, draw: np.random.Generator, settings: Pretraining) -> str:
    """A caption: a weapon's has the concept's word beside its name, or alone, or not at all."""
    if draw.random() < settings.dropped:
        return ""
    if name not in WEAPONS or (turn := draw.random()) < 0.5:
        return caption(name, style)
    return caption(name, style, concept=True) if turn < 0.8 else caption(CONCEPT, style)


def all_captions() -> list[str]:
    """Every caption that `words` can give."""
    from .sets import NAMES

    found = [""]
    for style in BASE:
        found += [caption(name, style) for name in NAMES]
        found += [caption(name, style, concept=True) for name in WEAPONS]
        found.append(caption(CONCEPT, style))
    return found


def sigmas(count: int, draw: np.random.Generator) -> torch.Tensor:
    """Noise levels in 0..1: half evenly, half as SD3's sampler spends its steps (shift 3)."""
    even = draw.random(count)
    shifted = 3 * even / (1 + 2 * even)
    return torch.from_numpy(np.where(draw.random(count) < 0.5, even, shifted)).float()


def train(
    latents: dict,
    texts: dict[str, tuple[torch.Tensor, torch.Tensor]],
    settings: Pretraining,
    report: Callable[[int, float], None] = lambda step, loss: None,
    state: Path | None = None,
) -> dict[str, torch.Tensor]:
    """The running mean of the network's weights. Goes on from `state` where that file is."""
    torch.manual_seed(settings.seed)
    model = network.bare().train()
    optimizer = torch.optim.AdamW(model.parameters(), settings.rate, betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, settings))
    mean = torch.optim.swa_utils.AveragedModel(
        model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(settings.ema)
    )
    kept = Kept(state, model=model, mean=mean, optimizer=optimizer, schedule=schedule)
    pairs = list(latents)
    odds = np.array([settings.weapons if name in WEAPONS else 1.0 for name, _ in pairs])
    for step in range(kept.begin(), settings.steps):
        draw = np.random.default_rng((settings.seed, step))
        chosen = draw.choice(len(pairs), settings.batch, p=odds / odds.sum())
        clean = torch.stack(
            [latents[pairs[each]][draw.integers(settings.variants)] for each in chosen]
        )
        told = [texts[words(*pairs[each], draw, settings)] for each in chosen]
        context, pooled = (torch.stack(half) for half in zip(*told, strict=True))
        sigma = sigmas(settings.batch, draw)
        noise = torch.from_numpy(draw.standard_normal(clean.shape, dtype=np.float32))
        mixed = clean.lerp(noise, sigma[:, None, None, None])
        loss = (model(mixed, sigma * 1000, context, pooled) - (noise - clean)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        mean.update_parameters(model)
        report(step + 1, loss.item())
        kept.save(step + 1)
    return mean.module.state_dict()


def _rate(step: int, settings: Pretraining) -> float:
    """The part of the rate at a step: a warm-up, then half a cosine."""
    if step < settings.warm:
        return (step + 1) / settings.warm
    done = (step - settings.warm) / max(1, settings.steps - settings.warm)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
