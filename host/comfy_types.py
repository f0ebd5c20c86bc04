"""What the host's values are, by the names of its sockets.

Nothing of ComfyUI is imported here: the trainers' options are read without it.
"""

from typing import Any, TypeAlias

import torch

# CONDITIONING, as `comfy_api` has it: of each text its encoding (1, tokens, C), and what else the
# network is told
Conditioning: TypeAlias = list[tuple[torch.Tensor, dict[str, Any]]]
# of a batch: which of its pictures go through the network together, and its keyword arguments then
Conditions: TypeAlias = list[tuple[list[int], dict[str, Any]]]
