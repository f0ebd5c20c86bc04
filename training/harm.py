"""What a safety LoRA does to prompts that should stay as they are.

    |d_s(x, r) - d_0(x, r)| / |d_0(x, r)|,  d(x, r) = y(x, r) - y(x, "")

of each prompt r, on a picture x of it that the base half-made; d_s is the safe model's. 0: nothing
was changed; 1: as much as all that the prompt says.
"""

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from comfy.model_patcher import ModelPatcher

from ..function.inputs import Ask, spread
from ..function.network import AT_ONCE, directions, empty_of, half_made, outputs
from ..host.comfy_types import Conditioning
from ..host.sampling import out_of_memory

LEVEL, SEED = 0.8, 1  # of the noise schedule, where a layout is decided; of the noise
MOST = 16  # prompts: a few pictures' worth of time
TOGETHER = AT_ONCE // 2  # pictures that are half made in a batch, each with the empty prompt


def harmed(
    model: ModelPatcher,
    made_safe: Callable[[], ModelPatcher],
    texts: Mapping[str, Conditioning],
    prompts: Sequence[str],
    resolution: int,
) -> dict[str, float | None]:
    """The formula above for at most `MOST` of the prompts, evenly among them, most harmed first.

    `made_safe` gives the safe model, which takes memory too. `texts` holds the prompts'
    conditionings and that of "". None is what could not be measured: a prompt that says nothing to
    the base, or all of them where memory does not suffice.
    """
    asks = [Ask(each, LEVEL, SEED, (each,)) for each in spread(list(prompts), MOST)]
    try:
        shares = _shares(model, made_safe, texts, asks, resolution) if asks else []
    except RuntimeError as error:
        if not out_of_memory(error):
            raise
        shares = [math.nan] * len(asks)
    ordered = sorted(
        zip((each.of for each in asks), shares, strict=True),
        key=lambda each: -each[1] if math.isfinite(each[1]) else -math.inf,
    )
    return {prompt: share if math.isfinite(share) else None for prompt, share in ordered}


@torch.no_grad()
def _shares(
    model: ModelPatcher,
    made_safe: Callable[[], ModelPatcher],
    texts: Mapping[str, Conditioning],
    asks: Sequence[Ask],
    resolution: int,
) -> list[float]:
    told, empty = (asks, texts), empty_of(model, resolution)
    some = [asks[place : place + TOGETHER] for place in range(0, len(asks), TOGETHER)]
    made = [half_made(model, each, texts, empty, _silent) for each in some]
    noisy, sigma = zip(*made, strict=True)
    pictures = torch.cat(noisy), torch.cat(sigma)
    before = directions(outputs(model, *told, pictures, _silent), asks)
    after = directions(outputs(made_safe(), *told, pictures, _silent), asks)
    change, size = (each.flatten(1).norm(dim=1) for each in (after - before, before))
    found: list[float] = (change / size).tolist()
    return found


def _silent(forwards: int) -> None:
    """Shows nothing: it takes seconds, and the bar of the training stands at its end."""
