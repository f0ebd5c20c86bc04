"""Short training runs on the small checkpoint, and whether two sets of weights are the same."""

import merging
import torch
from modular_safety_lora.training.settings import Settings


def short(**changed) -> Settings:
    """Settings of a run of four steps."""
    return Settings(**{"steps": 4, "batch_size": 2, **merging.SMALL, **changed})


def weights(model) -> dict[str, torch.Tensor]:
    """A copy of a model's weights."""
    return {name: value.detach().clone() for name, value in model.model.state_dict().items()}


def same(one, other) -> bool:
    return one.keys() == other.keys() and all(
        torch.equal(value, other[name]) for name, value in one.items()
    )
