"""ESD on all but cross-attention (Gandikota et al. 2023): esd_x.py's loss on the other layers."""

import torch

from .esd_x import EsdX
from .method import linear_layers

# the embedding of time and sizes, and the output
LEFT_ALONE = ("time_embed", "label_emb", "out.", "final_layer")


class EsdU(EsdX):
    name = "esd-u"
    words = "ESD on all else, acts without the words too"

    def layers(self, network: torch.nn.Module) -> list[str]:
        return [
            name
            for name in linear_layers(network)
            if "attn2" not in name and not name.startswith(LEFT_ALONE)
        ]


METHOD = EsdU()
