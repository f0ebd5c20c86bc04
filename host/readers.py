"""Where a prompt enters a network: the linear layers that read its encoding, and what they get."""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from .comfy_types import Conditioning, Conditions
from .denoiser import Denoiser
from .layers import is_linear
from .structure import seen_in


@dataclass(frozen=True)
class Entrance:
    """The linear layers that a prompt enters a network by, and where it enters past them."""

    layers: Sequence[str]
    past: Sequence[str]


def text_readers(denoiser: Denoiser, one: Conditioning, other: Conditioning) -> Entrance:
    """The linear layers whose input is made of the encoding of a prompt alone.

    That is what differs between two prompts of unlike words; the picture and the noise level have
    no part in it. In a UNet these are the keys and values of cross-attention, in a transformer the
    layers that text passes before the first block. Past them it enters where the encoding is added
    to something, goes into a convolution, or comes as numbers of words besides.
    """

    def found(noisy: torch.Tensor, sigma: torch.Tensor, conditions: Conditions) -> Entrance:
        told = conditions[0][1]
        against = denoiser.conditions([other], noisy)[0][1]
        of_text = {name for name, each in told.items() if not _same(each, against.get(name))}
        seen = seen_in(denoiser.base, noisy, sigma, told)
        reached = [name for name, (tags, _) in seen.inputs.items() if tags & of_text]
        alone = {name for name in reached if seen.inputs[name][0] <= of_text}
        linear = {n for n, e in network.named_modules() if n in alone and is_linear(e)}
        words = [name for name in of_text if _are_words(told[name])]
        bare = ["attention" for each in seen.attentions if each.layers & of_text]
        past = [name for name in reached if name not in linear]
        return Entrance(
            [name for name, _ in network.named_modules() if name in linear], past + bare + words
        )

    network = denoiser.base.diffusion_model
    return denoiser.on_a_small_picture(found, one)


@torch.no_grad()
def read(
    denoiser: Denoiser, layers: Sequence[str], conditioning: Conditioning
) -> dict[str, torch.Tensor]:
    """What each of these layers gets of a prompt: (tokens, in), or (1, in) of a text as a whole.

    Layers that read one tensor are given one.
    """
    network, got = denoiser.base.diffusion_model, dict[str, torch.Tensor]()
    with contextlib.ExitStack() as stack:
        for name in layers:
            hook = network.get_submodule(name).register_forward_pre_hook(_noting(got, name))
            stack.callback(hook.remove)
        denoiser.tried(conditioning)
    rows: dict[int, torch.Tensor] = {}
    for value in got.values():
        rows.setdefault(id(value), value.detach().flatten(0, -2))
    return {name: rows[id(value)] for name, value in got.items()}


def _noting(got: dict[str, torch.Tensor], name: str) -> Any:
    def note(_module: torch.nn.Module, given: tuple[torch.Tensor, ...]) -> None:
        got[name] = given[0]

    return note


def _are_words(value: object) -> bool:
    """Whether a condition has the numbers of words, and is no mask of them."""
    if not isinstance(value, torch.Tensor) or value.is_floating_point():
        return False
    return bool(value.gt(1).any())


def _same(one: object, other: object) -> bool:
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return one.shape == other.shape and torch.equal(one, other)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    return type(one) is type(other) and one == other
