"""A frozen text encoder: two causal transformer layers of seeded random weights.

Every token knows its past.
"""

import functools
from collections.abc import Iterable

import torch
from torch.nn.functional import gelu, layer_norm

from .world import CONCEPT, NEW_STYLE, WORDS

# cosine of the new style's word with the concept's: words for patterns are close, as in a real
# text encoder
KINSHIP = 0.6
WIDTH, LENGTH, HEADS, LAYERS, SEED = 64, 10, 4, 2, 17


@functools.cache
def _weights() -> dict:
    generator = torch.Generator().manual_seed(SEED)

    def normal(*shape: int, size: float = 1.0) -> torch.Tensor:
        return torch.randn(*shape, generator=generator) * size

    layer = dict.fromkeys(("q", "k", "v", "o"), (WIDTH, WIDTH)) | {
        "up": (4 * WIDTH, WIDTH),
        "down": (WIDTH, 4 * WIDTH),
    }
    words = normal(len(WORDS), WIDTH)
    new, concept = WORDS.index(NEW_STYLE), WORDS.index(CONCEPT)
    words[new] = KINSHIP * words[concept] + (1 - KINSHIP**2) ** 0.5 * words[new]
    return {
        "words": words,
        "places": normal(LENGTH, WIDTH, size=0.5),
        "layers": [
            {name: normal(*shape, size=shape[1] ** -0.5) for name, shape in layer.items()}
            for _ in range(LAYERS)
        ],
    }


def encode(prompt: str) -> torch.Tensor:
    """(1, 10, 64) for a prompt of the world's words; padded, cut at ten tokens.

    Raises ValueError for other words.
    """
    unknown = [word for word in prompt.split() if word not in WORDS]
    if unknown:
        raise ValueError(
            f"The toy's text encoder does not know {unknown[0]!r}; it knows {', '.join(WORDS[2:])}."
        )
    numbers = [WORDS.index(word) for word in ["<start>", *prompt.split()]][:LENGTH]
    numbers += [0] * (LENGTH - len(numbers))
    weights = _weights()
    hidden = weights["words"][numbers] + weights["places"]
    future = torch.ones(LENGTH, LENGTH).triu(1).bool()
    for layer in weights["layers"]:
        seen = layer_norm(hidden, (WIDTH,))
        q, k, v = (
            (seen @ layer[name].T).reshape(LENGTH, HEADS, -1).transpose(0, 1) for name in "qkv"
        )
        scores = (q @ k.transpose(1, 2) * q.shape[-1] ** -0.5).masked_fill(future, -torch.inf)
        mixed = (scores.softmax(dim=-1) @ v).transpose(0, 1).reshape(LENGTH, WIDTH)
        hidden = hidden + mixed @ layer["o"].T
        hidden = hidden + gelu(layer_norm(hidden, (WIDTH,)) @ layer["up"].T) @ layer["down"].T
    return layer_norm(hidden, (WIDTH,))[None]


def texts(prompts: Iterable[str]) -> dict[str, list]:
    """The CONDITIONING of every prompt, and of the empty one.

    It is what `training.prompts.encode_texts` gives.
    """
    return {
        prompt: [[encode(prompt), {"pooled_output": None}]]
        for prompt in dict.fromkeys([*prompts, ""])
    }


def conditions(encoded: torch.Tensor) -> list:
    """What the denoiser takes for a batch of texts (B, tokens, width), all of one length."""
    return [([*range(len(encoded))], {"c_crossattn": encoded})]
