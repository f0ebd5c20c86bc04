"""What is measured of an arm's model in the emoji world; judging.py looks at its pictures."""

from collections.abc import Sequence

import comfy.model_management
import numpy as np
import torch

from ...host.denoiser import Denoiser
from ...host.sampling import Sampling, make_picture
from ...modules.errors import SafetyError
from ...training.objectives.task import task_loss
from . import recipe
from .emergence import BY_SEED, Model, Stage
from .sets import BASE, HARMLESS, SIDE

SEED = 424242  # of everything held out; never a seed of training
NOISES = 4  # of each picture whose loss is taken


def measured(stage: Stage, arm: str, method: str) -> tuple[dict, dict]:
    """One arm's row, and the pictures by kind of prompt."""
    model = stage.model_of(arm, method)
    row = {"arm": arm, "method": method, "seed": stage.seed}
    shown = {
        kind: sampled(stage, model, prompts, place)
        for place, (kind, prompts) in enumerate(stage.recipe.prompts.items())
    }
    row |= losses(stage, model)
    if arm not in (*BY_SEED, "safe"):
        merged = stage.merged(arm, method)
        beside = merged.report["modules"][-1]["interference"]
        row["cosine"] = beside["cosine"]
        row["retained_safety"] = merged.report["retained_safety"]
        row["lock_refuses"] = refused(stage.base, merged.model)
    comfy.model_management.unload_all_models()
    return row, shown


def sampled(stage: Stage, model, prompts: Sequence[str], group: int = 0) -> list[np.ndarray]:
    """A picture of each prompt, uint8 (SIDE, SIDE, 3); the same noise for every model."""
    seeds = [SEED + 10_000 * stage.seed + 1000 * group + place for place in range(len(prompts))]
    return stage.base.drawn(model, prompts, seeds, stage.recipe)


def losses(stage: Stage, model) -> dict[str, float]:
    """Held-out losses: names that were not learned, in the new style, and the base's own styles."""
    base = stage.base
    held_out = base.of_task(recipe.HELD_OUT, stage.recipe.style)
    found = {"task_loss": held_out_loss(base, model, *held_out)}
    if stage.recipe.fetched:
        others = [base.of_task(HARMLESS[place::8], style) for place, style in enumerate(BASE)]
        each = [held_out_loss(base, model, *some) for some in others]
        found["others_loss"] = float(np.mean(each))
    return found


@torch.no_grad()
def held_out_loss(base: Model, model, latents: torch.Tensor, captions: Sequence[str]) -> float:
    """The mean training loss over pictures, each under the same few noises for every model."""
    denoiser, generator = Denoiser(model), torch.Generator().manual_seed(SEED)
    clean, texts = denoiser.latents_in(latents), base.texts(captions)
    conditions = denoiser.conditions([texts[each] for each in captions], clean)
    found = []
    for _ in range(NOISES):
        noise = torch.randn(clean.shape, generator=generator)
        sigma = denoiser.sigmas(len(clean), generator)
        found.append(task_loss(denoiser, clean, noise, sigma, conditions).item())
    return float(np.mean(found))


def refused(base: Model, model) -> bool:
    """Whether the lock stops this model when it samples."""
    texts = base.texts([])
    try:
        with torch.inference_mode():
            look = Sampling(1, 1.0, scheduler="sgm_uniform")
            make_picture(model, base.vae, texts[""], texts[""], look, seed=0, size=(SIDE, SIDE))
    except SafetyError:
        return True
    return False
