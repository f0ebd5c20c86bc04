"""Where a safety LoRA acts, and how much it changes what the network computes.

    |d_m(x, p) - d_b(x, p)| / |d_b(x, p)|,  d(x, p) = y(x, p) - y(x, "")

of the safe model (function/changed.py); and of the base with the changes of one kind of layer
alone. The kinds do not add up to the whole.
"""

import logging
import math
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from comfy.model_patcher import ModelPatcher

from ..function.changed import Before
from ..function.inputs import spread
from ..function.measure import Arm
from ..host.denoiser import Denoiser
from ..host.lending import lent
from ..host.sampling import out_of_memory
from ..host.structure import OTHER
from ..merge.arms import Arms
from ..merge.in_function import UNRUN
from .names import CONCEPT, HARMLESS, NEAR, TOLD
from .prompts import Groups

logger = logging.getLogger(__name__)
MOST = 8  # prompts of a kind: a few pictures' worth of time
PREFIX, TEXT, ALL = "diffusion_model.", "text encoder", "not told apart"
Json = dict[str, Any]


def in_function(
    arms: Arms, groups: Groups, resolution: int, step: Callable[[], None] = lambda: None
) -> Json:
    """`changed` by kind of prompt, and `acts` by kind of layer: means over prompts.

    A mean of what is not finite is None. `step` is called before each model is asked; it may raise
    to stop.
    """
    asked = {kind: spread(list(groups[kind]), MOST) for kind in (*CONCEPT, *HARMLESS)}
    prompts = list(dict.fromkeys(text for some in asked.values() for text in some))
    with torch.inference_mode():
        base, safe = arms.base(prompts), arms.safe(0, prompts)
        step()
        before = Before.of(base.model, base.conditionings, prompts, resolution)

        def means(arm: Arm, kinds: Iterable[str]) -> dict[str, float | None]:
            step()
            shares = before.changed(arm.model, arm.conditionings)
            by_prompt = dict(zip(prompts, shares, strict=True))
            return {kind: _mean([by_prompt[text] for text in asked[kind]]) for kind in kinds}

        changed = means(safe, asked)
        acts = {
            kind: {"weights": weights} | means(arm, (TOLD, NEAR))
            for kind, (arm, weights) in _by_kind(arms, base, safe).items()
        }
    return {
        "prompts": {kind: len(some) for kind, some in asked.items()},
        "changed": changed,
        "acts": acts,
    }


def _by_kind(arms: Arms, base: Arm, safe: Arm) -> Mapping[str, tuple[Arm, int]]:
    """The base with the changes of each kind of layer alone, and how many weights it changes."""
    keys: dict[str, list[str]] = {}
    if safe.model.patches:
        roles = _roles(base)
        for key in safe.model.patches:
            layer = key.removeprefix(PREFIX).rpartition(".")[0]
            keys.setdefault(roles.get(layer, OTHER) if roles else ALL, []).append(key)
    found = {
        kind: (Arm(_only(safe.model, some), base.texts), len(some)) for kind, some in keys.items()
    }
    text = arms.plans[1]
    if text.holds(0):
        found[TEXT] = Arm(base.model, safe.texts), len(text.sealed)
    return found


def _roles(base: Arm) -> dict[str, str]:
    """The role of each layer; of none where the family has no gradient by which it shows."""
    conditioning = next(iter(base.conditionings.values()))
    try:
        with lent(base.model) as model:
            return Denoiser(model).roles(conditioning)
    except UNRUN as error:
        if out_of_memory(error):
            raise
        logger.warning("Report Safety LoRA: layers can't be told apart: %s", error)
        return {}


def _only(model: ModelPatcher, keys: Sequence[str]) -> ModelPatcher:
    clone = model.clone()
    clone.patches = {key: clone.patches[key] for key in keys}
    clone.patches_uuid = uuid.uuid4()
    return clone


def _mean(shares: Sequence[float]) -> float | None:
    """None where there is nothing, or something that is not finite."""
    total = math.fsum(shares) / len(shares) if shares else math.nan
    return float(f"{total:.4g}") if math.isfinite(total) else None
