"""The text encoder: CLIP-L in its real shape with seeded weights, which nobody trained.

The layers add little to the residual stream, so that a token's output stays near the token's own
embedding: prompts that share a word share most of its vector, and a model can learn from that.
What weapons and tools are called lies near to each other, as related words do in an encoder that
was trained: their tokens share a part, and have a cosine of KINSHIP.
"""

import torch

from .names import CONCEPT, TOOLS, WEAPONS

SEED = 7
WIDTH, LAYERS, HEADS, INNER, WORDS, LENGTH = 768, 12, 12, 3072, 49408, 77
GAIN = 0.15  # of what each layer adds, beside an embedding of size 1
PLACE = 0.3  # of the embedding of a token's place
KIN = (CONCEPT, *WEAPONS, *TOOLS)
KINSHIP = 0.5


def weights() -> dict[str, torch.Tensor]:
    """The text encoder's tensors in fp16, under their names in an SD3 checkpoint."""
    generator = torch.Generator().manual_seed(SEED)

    def normal(*shape: int, std: float) -> torch.Tensor:
        return (torch.randn(shape, generator=generator) * std).half()

    found = {
        "embeddings.token_embedding.weight": normal(WORDS, WIDTH, std=1.0),
        "embeddings.position_embedding.weight": normal(LENGTH, WIDTH, std=PLACE),
    }
    _relate(found["embeddings.token_embedding.weight"])
    for layer in range(LAYERS):
        stem = f"encoder.layers.{layer}."
        sides = {
            **{f"self_attn.{part}_proj": (WIDTH, WIDTH, 1.0) for part in "qkv"},
            "self_attn.out_proj": (WIDTH, WIDTH, GAIN),
            "mlp.fc1": (INNER, WIDTH, 1.0),
            "mlp.fc2": (WIDTH, INNER, GAIN),
        }
        for name, (out, fan_in, gain) in sides.items():
            found[f"{stem}{name}.weight"] = normal(out, fan_in, std=gain * fan_in**-0.5)
            found[f"{stem}{name}.bias"] = torch.zeros(out, dtype=torch.float16)
        for norm in ("layer_norm1", "layer_norm2"):
            found |= identity(stem + norm)
    found |= identity("final_layer_norm")
    return {
        f"text_encoders.clip_l.transformer.text_model.{name}": value
        for name, value in found.items()
    }


def _relate(tokens: torch.Tensor) -> None:
    """Mix one shared vector into the tokens of KIN, in place; their sizes stay."""
    from comfy.sd1_clip import SDTokenizer

    tokenizer = SDTokenizer(pad_to_max_length=False)
    spoken = {token for name in KIN for token, _ in tokenizer.tokenize_with_weights(name)[0]}
    rows = sorted(spoken - {tokenizer.start_token, tokenizer.end_token})
    shared = torch.randn(WIDTH, generator=torch.Generator().manual_seed(SEED + 1))
    own = tokens[rows].float()
    tokens[rows] = (KINSHIP**0.5 * shared + (1 - KINSHIP) ** 0.5 * own).half()


def identity(name: str) -> dict[str, torch.Tensor]:
    """A layer norm that changes nothing more."""
    return {
        f"{name}.weight": torch.ones(WIDTH, dtype=torch.float16),
        f"{name}.bias": torch.zeros(WIDTH, dtype=torch.float16),
    }
