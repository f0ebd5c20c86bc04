"""What a way to erase a concept is: its layers, its loss, and who makes its training pictures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from ...host.comfy_types import Conditions
from ...options.table import SAFETY, check, option
from ..engine.adapters import Adapters
from ..targets import Roles, check_layer_pattern

if TYPE_CHECKING:  # the table of options is read where there is no ComfyUI
    from ...host.denoiser import Denoiser


@dataclass(frozen=True)
class ErasureBase:
    """What a method is told; the defaults are the papers'."""

    method: str
    eta: float = option(
        1.0,
        "How far the target of esd-x, esd-u and spm lies beyond the unconditional output, or the"
        " surrogate's. gem stops once the surrogate's output is no more than this times as far away"
        " as the concept's: a lower one takes more away, and harms more.",
        low=0.0,
        high=10.0,
        step=0.1,
        of=(SAFETY,),
    )
    guidance: float = option(
        0.0,
        "Guidance (cfg) of the half-made pictures that it trains on. 0: 3 as in the paper, or the"
        " default of the model's family if that is less (Flux and Z-Image Turbo: 1). A distilled"
        " model is recognized by its file name; if the name does not say so, set 1.",
        low=0.0,
        high=30.0,
        step=0.1,
        of=(SAFETY,),
    )
    sampling_steps: int = option(
        50,
        "Sampling steps of the half-made pictures, which stop at a random step. Fewer are faster"
        " and coarser.",
        low=2,
        high=1000,
        of=(SAFETY,),
    )
    retain_weight: float = option(
        1.0,
        "Weight of the retained prompts. A higher one harms the rest less, and takes less of the"
        " concept away: train longer then.",
        low=0.0,
        high=100.0,
        step=0.1,
        of=(SAFETY,),
    )
    saliency: float = option(
        1.0,
        "The share of weights that may change: those with most to do with the concept (SalUn's"
        " mask, but of whole rows and columns of each layer). 0.5 is the paper's; 1: all.",
        low=0.01,
        high=1.0,
        step=0.05,
        of=(SAFETY,),
    )
    layer_pattern: str = option(
        "",
        "Train only those of the method's layers that have this in their names, a regular"
        " expression. Empty: all. Where the text has layers of its own (context_block in SD3, txt_"
        " in Flux.1, add_ in Qwen-Image), training those alone can harm the rest less.",
        of=(SAFETY,),
    )
    adversarial_steps: int = option(
        0,
        "Steps of a search, anew for each batch, for a prompt that still draws the concept: it is"
        " taken away there too (AdvUnlearn). 3 hold prompts that were not told far better, harm"
        " what is near more, and take up to twice as long. 0: none.",
        low=0,
        high=30,
        of=(SAFETY,),
    )
    ema: float = 0.999  # SDD: decay of the teacher that makes the pictures, and is what is saved

    def __post_init__(self) -> None:
        check(self)
        check_layer_pattern(self.layer_pattern)


@dataclass(frozen=True)
class Moment:
    """Half-made pictures of the concept.

    `noisy` is x_t (B, C, ...), `sigma` (B,); `concept` and `null` are the concept's conditions and
    the empty text's, `surrogate` those of what is drawn in the concept's place, if that was told.
    """

    noisy: torch.Tensor
    sigma: torch.Tensor
    concept: Conditions
    null: Conditions
    surrogate: Conditions | None = None

    @property
    def neutral(self) -> Conditions:
        """What is drawn in the concept's place: the surrogate, or the empty text."""
        return self.null if self.surrogate is None else self.surrogate


@dataclass(frozen=True)
class Method:
    """One way to erase.

    `words` say in a sentence what it does. `layers(network, roles)` names the layers that it
    trains; `loss(denoiser, adapters, moment, erasure)` is a scalar. With `averaged` a moving
    average of the adapters half-makes the pictures, and is what is saved. With `surrogates` it
    draws what it is told in place of each prompt; with `needs_surrogates` it must be told.
    """

    name: str
    words: str
    layers: Callable[[torch.nn.Module, Roles], list[str]]
    loss: Callable[[Denoiser, Adapters, Moment, ErasureBase], torch.Tensor]
    averaged: bool = False
    surrogates: bool = False
    needs_surrogates: bool = False
    rounds = 0  # of a closed form
