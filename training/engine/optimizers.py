"""Optimizers by name, and their whole state as tensors and JSON: a checkpoint needs no pickle."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch

from ..settings import Settings

PACKAGES = {"adamw8bit": "bitsandbytes", "prodigy": "prodigyopt"}


def optimizer_class(settings: Settings) -> type[torch.optim.Optimizer]:
    """The optimizer that the settings name: AdamW, its 8-bit form, or Prodigy.

    AdamW is of Loshchilov and Hutter 2019, its 8-bit form of Dettmers et al. 2022, Prodigy of
    Mishchenko and Defazio 2024. Raises ValueError when its package is not installed.
    """
    try:
        if settings.optimizer == "adamw8bit":
            from bitsandbytes.optim import AdamW8bit

            return AdamW8bit
        if settings.optimizer == "prodigy":
            from prodigyopt import Prodigy

            return Prodigy
    except ImportError as error:
        package = PACKAGES[settings.optimizer]
        raise ValueError(
            f"The optimizer {settings.optimizer!r} needs the package {package}, which can't be"
            f" imported here ({error}). Install it with pip install {package}, or choose adamw."
        ) from error
    return torch.optim.AdamW


def make_optimizer(
    parameters: Iterable[torch.nn.Parameter], settings: Settings
) -> torch.optim.Optimizer:
    """The optimizer of a run.

    Prodigy finds the step size itself; its learning rate is a factor, 1.0 as its authors advise.
    """
    more: dict[str, Any] = {
        "adamw": {"foreach": True},
        "adamw8bit": {},
        "prodigy": {"safeguard_warmup": settings.warmup > 0},
    }[settings.optimizer]
    common: dict[str, Any] = {"lr": settings.learning_rate, "weight_decay": settings.weight_decay}
    return optimizer_class(settings)(list(parameters), **common, **more)


def split(nested: object, tensors: dict[str, torch.Tensor], place: str = "state") -> object:
    """A nested state as JSON-ready lists; its tensors move into `tensors`, named by their place."""
    if isinstance(nested, torch.Tensor):
        tensors[place] = nested.detach().cpu().clone()
        return ["tensor", place]
    if isinstance(nested, dict):
        return [
            "dict",
            [[key, split(value, tensors, f"{place}.{key}")] for key, value in nested.items()],
        ]
    if isinstance(nested, list | tuple):
        return ["list", [split(value, tensors, f"{place}.{at}") for at, value in enumerate(nested)]]
    return ["value", nested]


def join(kept: list[Any], tensors: Mapping[str, torch.Tensor]) -> Any:
    """What `split` took apart; tuples come back as lists."""
    kind, what = kept
    if kind == "tensor":
        return tensors[what]
    if kind == "dict":
        return {key: join(value, tensors) for key, value in what}
    return [join(value, tensors) for value in what] if kind == "list" else what
