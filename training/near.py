"""What is near a concept, by the model's own text encoder: what a safety LoRA may harm first."""

from collections.abc import Mapping, Sequence

import torch

from ..host.comfy_types import Conditioning


def nearest(
    texts: Mapping[str, Conditioning],
    concepts: Sequence[str],
    candidates: Sequence[str],
    count: int,
) -> list[str]:
    """The `count` candidates with the largest max_c cos(v(p), v(c)), nearest first.

    v(p) is the mean of p's tokens, each scaled to length 1 so that none outweighs the rest, less
    the same of the empty text, which all prompts share. `texts` holds the conditioning of every
    prompt and of "". Raises ValueError where the encoder gives numbers that are not finite.
    """
    if not (count and candidates and concepts):
        return []
    empty = _mean(texts[""])

    def directions(prompts: Sequence[str]) -> torch.Tensor:  # (prompts, C), each of length 1
        found = torch.stack([_mean(texts[prompt]) - empty for prompt in prompts])
        return torch.nn.functional.normalize(found, dim=1)

    closeness = (directions(candidates) @ directions(concepts).T).amax(dim=1)
    if not closeness.isfinite().all():
        raise ValueError(
            "The text encoder gives numbers that are not finite, so that nothing can be said to be"
            " near the concept. Load it in another dtype, such as bf16 or fp32."
        )
    order = closeness.argsort(descending=True, stable=True).tolist()
    return [candidates[place] for place in order[:count]]


def _mean(conditioning: Conditioning) -> torch.Tensor:
    """The mean of an encoding (1, tokens, C) over its tokens, each of length 1: (C,)."""
    return torch.nn.functional.normalize(conditioning[0][0].float(), dim=-1).mean(dim=(0, 1))
