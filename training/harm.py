"""What a safety LoRA does to prompts that should stay as they are.

    |d_s(x, r) - d_0(x, r)| / |d_0(x, r)|,  d(x, r) = y(x, r) - y(x, "")

of each prompt r, on a picture x of it that the base half-made; d_s is the safe model's. 0: nothing
was changed; 1: as much as all that the prompt says.
"""

from collections.abc import Mapping, Sequence

import torch
from comfy.model_patcher import ModelPatcher

from ..function.inputs import Ask, spread
from ..function.network import directions, empty_of, half_made, outputs
from ..host.comfy_types import Conditioning
from ..merge.merge import merge
from ..modules.files import LoraFile

LEVEL, SEED = 0.8, 1  # of the noise schedule, where a layout is decided; of the noise
MOST = 16  # prompts: a few pictures' worth of time


@torch.no_grad()
def harmed(
    model: ModelPatcher,
    module: LoraFile,
    texts: Mapping[str, Conditioning],
    prompts: Sequence[str],
    resolution: int,
) -> dict[str, float]:
    """The formula above for at most `MOST` of the prompts, evenly among them, most harmed first.

    `texts` holds their conditionings and that of "".
    """
    asks = [Ask(each, LEVEL, SEED, (each,)) for each in spread(list(prompts), MOST)]
    if not asks:
        return {}
    told = (asks, texts)
    pictures = half_made(model, *told, empty_of(model, resolution), _silent)
    base = directions(outputs(model, *told, pictures, _silent), asks)
    safe = directions(outputs(merge(model, [module]).model, *told, pictures, _silent), asks)
    change, size = (each.flatten(1).norm(dim=1) for each in (safe - base, base))
    found = dict(zip((each.of for each in asks), (change / size).tolist(), strict=True))
    return dict(sorted(found.items(), key=lambda each: -each[1]))


def _silent(forwards: int) -> None:
    pass
