"""What a safety LoRA does to prompts that should stay as they are (function/changed.py)."""

import math
from collections.abc import Callable, Mapping, Sequence

from comfy.model_patcher import ModelPatcher

from ..function.changed import Before
from ..function.inputs import spread
from ..host.comfy_types import Conditioning
from ..host.sampling import out_of_memory

MOST = 16  # prompts: a few pictures' worth of time


def harmed(
    model: ModelPatcher,
    made_safe: Callable[[], ModelPatcher],
    texts: Mapping[str, Conditioning],
    prompts: Sequence[str],
    resolution: int,
) -> dict[str, float | None]:
    """By how much at most `MOST` of the prompts are changed, evenly among them, most first.

    `made_safe` gives the safe model, which takes memory too. `texts` holds the prompts'
    conditionings and that of "". None is what could not be measured: a prompt that says nothing to
    the base, or all of them where memory does not suffice.
    """
    some = spread(list(prompts), MOST)
    try:
        shares = (
            Before.of(model, texts, some, resolution).changed(made_safe(), texts) if some else []
        )
    except RuntimeError as error:
        if not out_of_memory(error):
            raise
        shares = [math.nan] * len(some)
    return told(dict(zip(some, shares, strict=True)))


def told(shares: Mapping[str, float]) -> dict[str, float | None]:
    """The same, most first; None for what is not finite."""
    ordered = sorted(
        shares.items(), key=lambda each: -each[1] if math.isfinite(each[1]) else -math.inf
    )
    return {prompt: share if math.isfinite(share) else None for prompt, share in ordered}
