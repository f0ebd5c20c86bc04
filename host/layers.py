"""The layers of a network that hold its weights, whatever class the host made them of."""

from typing import TypeGuard

import torch

CONVOLUTIONS = (torch.nn.Conv1d, torch.nn.Conv2d, torch.nn.Conv3d)


def is_linear(module: torch.nn.Module) -> TypeGuard[torch.nn.Linear]:
    """Whether a module is a linear layer, also one of the host's whose weights are quantised."""
    return isinstance(module, torch.nn.Linear) or (
        hasattr(module, "in_features")
        and hasattr(module, "out_features")
        and next(module.children(), None) is None
    )


def layers_of(network: torch.nn.Module) -> dict[str, torch.nn.Module]:
    """All linear layers and convolutions of a network, by name."""
    return {
        name: module
        for name, module in network.named_modules()
        if is_linear(module) or isinstance(module, CONVOLUTIONS)
    }
