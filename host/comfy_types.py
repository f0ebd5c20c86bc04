"""What the host's values are, by the names of its sockets.

Nothing of ComfyUI is imported here: the trainers' options are read without it.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import torch

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher

# CONDITIONING, as `comfy_api` has it: of each text its encoding (1, tokens, C), and what else the
# network is told
Conditioning: TypeAlias = list[tuple[torch.Tensor, dict[str, Any]]]
# of a batch: which of its pictures go through the network together, and its keyword arguments then
Conditions: TypeAlias = list[tuple[list[int], dict[str, Any]]]
# (dim, start, length): a part of a fused weight
Offset: TypeAlias = tuple[int, int, int] | None
# of the pieces of a weight: what turns a difference into that piece's
Piece: TypeAlias = Callable[[torch.Tensor], torch.Tensor] | None
# an entry of `ModelPatcher.patches`: (strength, value, strength of the model, offset, piece)
Patch: TypeAlias = tuple[Any, ...]


class Clip(Protocol):
    """CLIP: a text encoder, and the patcher of its weights."""

    patcher: "ModelPatcher"
    cond_stage_model: torch.nn.Module
    layer_idx: int | None
    tokenizer_options: dict[str, Any]

    def clone(self) -> "Clip":
        """Another that shares the weights, with patches of its own."""

    def tokenize(self, text: str) -> Any:
        """The tokens of a text, by the names of the encoder's parts."""

    def encode_from_tokens_scheduled(self, tokens: Any) -> Conditioning:
        """The CONDITIONING of tokens; the weights are loaded for it."""

    def load_model(self, tokens: Any) -> "ModelPatcher":
        """Load the weights, with what lies on them."""
