"""ESD on all but cross-attention (Gandikota et al. 2023): esd_x.py's loss on the other layers.

Those are the layers of the network's body that do not read the text. Embedders, modulation and the
output, which turn on the time and on pooled text, are left alone.
"""

import torch

from ...host.structure import MLP, OTHER, SELF
from ..targets import Roles, of_roles
from .esd_x import loss
from .method import Method


def layers(network: torch.nn.Module, roles: Roles) -> list[str]:
    return of_roles(network, roles, (SELF, MLP, OTHER))


METHOD = Method(
    "esd-u", ("ESD on all other layers; also acts when the words are not used"), layers, loss
)
