"""Retained safety in function of one merge: three models asked at the same half-made pictures.

What depends on the base and one safety module alone is measured once and kept (kept.py).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from comfy.model_patcher import ModelPatcher

from ..host.comfy_types import Conditioning
from ..host.digest import Digest
from . import kept
from .inputs import Ask
from .network import (
    SAMPLING,
    CountForwards,
    HalfMaking,
    Pictures,
    asked_prompts,
    directions,
    empty_of,
    half_made,
    outputs,
    precision_of,
)
from .number import Number, number
from .texts import Text

FORMAT = 5  # of what is kept: another one is measured again


@dataclass(frozen=True)
class Arm:
    """A model to ask, and its prompts as its own text encoder gives them."""

    model: ModelPatcher
    texts: Mapping[str, Text]

    @property
    def conditionings(self) -> dict[str, Conditioning]:
        return {prompt: text.conditioning for prompt, text in self.texts.items()}

    @property
    def of_texts(self) -> list[tuple[str, str]]:
        """The digest of each prompt, as the text encoder gives it."""
        return sorted((prompt, text.sha256) for prompt, text in self.texts.items())


@dataclass(frozen=True)
class Reference:
    """x and sigma of the pictures, and y of the base and of the safe model there."""

    asks: tuple[Ask, ...]
    pictures: Pictures
    base: torch.Tensor
    safe: torch.Tensor


def reference(
    base: Arm,
    safe: Arm,
    asks: Sequence[Ask],
    *,
    resolution: int,
    identity: Mapping[str, str] | None,
    made: HalfMaking = half_made,
    step: CountForwards = lambda count: None,
) -> Reference:
    """Half-made pictures, and what base and safe model make of them; kept if there is an identity.

    `identity` names base and safety module by digests; None where they have none. `made` half-makes
    the pictures (`half_made`, or `long.half_made_apart`).
    """
    empty = empty_of(base.model, resolution)
    name = identity and kept.digest(
        format=FORMAT,
        **identity,
        asks=[(each.of, each.level, each.seed, each.prompts) for each in asks],
        side=list(empty.shape),
        texts=[base.of_texts, safe.of_texts],
        **computed_in(base.model),
    )
    known = kept.read(name) if name else None
    if known is not None:
        tensors, _ = known
        pictures = tensors["x"], tensors["sigma"]
        return Reference(tuple(asks), pictures, tensors["base"], tensors["safe"])
    pictures = made(base.model, asks, base.conditionings, empty, step)
    y_b = outputs(base.model, asks, base.conditionings, pictures, step)
    y_s = outputs(safe.model, asks, safe.conditionings, pictures, step)
    if name:
        tensors = {"x": pictures[0], "sigma": pictures[1], "base": y_b, "safe": y_s}
        kept.write(name, tensors, {})
    return Reference(tuple(asks), pictures, y_b, y_s)


def measured(
    found: Reference, merged: Arm, step: CountForwards = lambda count: None
) -> tuple[Number, torch.Tensor]:
    """The number of a merged model, and its y at the reference's pictures."""
    y = outputs(merged.model, found.asks, merged.conditionings, found.pictures, step)
    return compared(found, y), y


def compared(found: Reference, y: torch.Tensor) -> Number:
    asks = found.asks
    return number(
        asked_prompts(asks), *(directions(each, asks) for each in (found.base, found.safe, y))
    )


def computed_in(model: ModelPatcher) -> dict[str, str]:
    """What the numbers of a network depend on beside its weights: precision, device, sampling."""
    sampling = model.get_model_object(SAMPLING)
    network = model.model.diffusion_model
    held = {str(each.dtype) for each in network.parameters()}
    held |= {str(getattr(each, "quant_format", None)) for each in network.modules()}
    return {
        "precision": f"{precision_of(model)} held in {', '.join(sorted(held))}",
        "device": f"{model.load_device} {_device(model.load_device)} torch {torch.__version__}",
        "sampling": f"{[each.__name__ for each in type(sampling).__mro__]}"
        + Digest().of(sampling.sigmas).hex(),
    }


def _device(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return torch.backends.cpu.get_cpu_capability()
