"""A canary: one forward of a locked network on a kept input, at every sampling.

The lists on a patcher say what should compute; this says what does. Nothing of the graph takes part
in it, no patch of attention, no wrapper, no guidance: the network alone, as it is loaded, against
what it gave when it was merged. A compiled network is not compiled again for it: what is run is the
network that was compiled.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from comfy.model_patcher import ModelPatcher

from ..drawing.markdown import share
from ..host.comfy_types import Clip, Conditioning
from ..host.denoiser import Denoiser, in_output
from ..host.lending import load_for
from .naming import Snapshot, changed, snapshot
from .network import PRECISION, SAMPLING, Pictures, precision_of

# How far an output may be from what it was, as a share of its size, by what computes. Measured by
# tests/host/test_canary_harmless.py on the small SD1.5 and Flux, merged and sampled in memory, in
# part and streaming, on a CPU: at most 0.0018 (weights held in bf16, rounded when patched), 0.0017
# and 0.013.
TOLERANCE = {torch.float32: 0.005, torch.float16: 0.02, torch.bfloat16: 0.06}
COARSE = 0.12  # where weights are held in eight bits or four, and rounded again; measured: 0.038
OPTIONS = ("layer", "layer_idx", "return_projected_pooled", "execution_device")
# Of the safety module's effect, if it is more than rounding takes along this one direction: of a
# module of little effect that may be most of it (0.85 was measured, in fp8, of an effect of 0.017).
LOST = 0.25
ROUNDING = 1 / 3  # of the tolerance; measured: 0.18


@dataclass(frozen=True)
class Input:
    """A kept input and its CONDITIONING, on the CPU.

    `sampling` and `precision` are the model's own at the merge: a node may put others on a model
    that is locked, and may do so.
    """

    noisy: torch.Tensor
    sigma: torch.Tensor
    conditioning: Conditioning
    sampling: torch.nn.Module
    precision: torch.dtype

    @torch.no_grad()
    def forward(self, patcher: ModelPatcher, apply: Callable[..., torch.Tensor]) -> torch.Tensor:
        """y of a model that is loaded; `apply` is its `apply_model`, or what is in its place."""
        denoiser = Denoiser.of_loaded(patcher)
        noisy, sigma = self.noisy.to(denoiser.device), self.sigma.to(denoiser.device)
        with _as_then(patcher.model, {SAMPLING: self.sampling, PRECISION: self.precision}):
            given = denoiser.conditions([self.conditioning], noisy)[0][1]
            denoised = apply(noisy, sigma, transformer_options={}, **given)
        return in_output(self.sampling, denoised, noisy, sigma).cpu()


@dataclass(frozen=True)
class Canary(Input):
    """An input, and y of the locked network there.

    `unsafe` is y of the base, or None where it was not measured.
    """

    y: torch.Tensor
    unsafe: torch.Tensor | None
    is_coarse: bool
    snapshot: Snapshot

    def faults(self, patcher: ModelPatcher) -> list[str]:
        """What computes now and did not at the merge, in words; empty when nothing does."""
        now = self.forward(patcher, patcher.model.apply_model)
        off = _off(now, self.y)
        lost = 0.0 if self.unsafe is None else _lost(now, self.y, self.unsafe)
        # not (a > b): a number that is none counts as changed
        is_whole = lost <= LOST or lost * self.effect <= ROUNDING * self.tolerance
        if off <= self.tolerance and is_whole:
            return []
        how = _how_far(off)
        if lost > LOST:
            how += f", {share(lost, digits=0)} of the safety LoRA's effect is gone"
        return [f"{each} ({how})" for each in changed(self.snapshot, patcher)] or [
            f"an unknown change that is in no list of patches ({how})"
        ]

    @property
    def tolerance(self) -> float:
        return COARSE if self.is_coarse else TOLERANCE.get(self.precision, COARSE)

    @property
    def effect(self) -> float:
        """How far the base is from the locked network here, as a share of its output's size."""
        return 0.0 if self.unsafe is None else _off(self.unsafe, self.y)


def canary(
    model: ModelPatcher,
    pictures: Pictures,
    conditioning: Conditioning,
    *,
    unsafe: torch.Tensor | None = None,
    y: torch.Tensor | None = None,
) -> Canary:
    """A canary of a locked model: x (1, C, ...) and sigma (1,), and y there of it and of the base.

    Without `y` the model is loaded and run.
    """
    x, sigma = pictures
    asked = Input(x, sigma, conditioning, model.get_model_object(SAMPLING), precision_of(model))
    is_coarse, before = _is_coarse(model.model.diffusion_model), snapshot(model)
    if y is None:
        load_for(model, x.shape)
        # not through `apply_model`: a policy on what samples does not forbid to look
        y = asked.forward(model, model.model._apply_model)
    return Canary(**vars(asked), y=y, unsafe=unsafe, is_coarse=is_coarse, snapshot=before)


def _is_coarse(network: torch.nn.Module) -> bool:
    """Whether weights are held in eight bits or four."""
    return any(each.dtype.itemsize == 1 for each in network.parameters()) or any(
        getattr(each, "quant_format", None) for each in network.modules()
    )


@contextlib.contextmanager
def _as_then(model: torch.nn.Module, attributes: Mapping[str, object]) -> Iterator[None]:
    """Set these attributes of a model for a block, and put its own back."""
    before = {name: getattr(model, name) for name in attributes}
    try:
        for name, value in attributes.items():
            setattr(model, name, value)
        yield
    finally:
        for name, value in before.items():
            setattr(model, name, value)


def _lost(now: torch.Tensor, then: torch.Tensor, unsafe: torch.Tensor) -> float:
    """How far y went from the locked network's towards the base's, as a share of the way."""
    way = (unsafe - then).double().flatten()
    square = way.dot(way).item()
    return float((now - then).double().flatten().dot(way).item() / square) if square else 0.0


def _off(now: torch.Tensor, then: torch.Tensor) -> float:
    """How far an output is from what it was, as a share of its size."""
    return float(((now - then).norm() / then.norm()).item())


def _how_far(off: float) -> str:
    if off != off:
        return "its output is NaN"
    return f"its output is {share(off, digits=0)} from what it was at the merge"


@dataclass(frozen=True)
class TextCanary:
    """A kept prompt's tokens, and what the locked text encoder gave for them."""

    tokens: object
    snapshot: Snapshot
    y: torch.Tensor

    def faults(self, patcher: ModelPatcher) -> list[str]:
        """What encodes now and did not at the merge, in words; empty when nothing does."""
        off = _off(_encoding(patcher, self.tokens), self.y)
        held = {each.dtype for each in patcher.model.parameters() if each.is_floating_point()}
        if off <= max(TOLERANCE.get(each, COARSE) for each in held):
            return []
        how = _how_far(off)
        return [f"{each} ({how})" for each in changed(self.snapshot, patcher)] or [
            f"an unknown change of the text encoder that is in no list of patches ({how})"
        ]


def text_canary(clip: Clip, prompt: str) -> TextCanary:
    """A canary of a CLIP with everything on it and no lock, which is loaded."""
    tokens, before = clip.tokenize(prompt), snapshot(clip.patcher)
    clip.load_model(tokens)
    return TextCanary(tokens, before, _encoding(clip.patcher, tokens))


@torch.no_grad()
def _encoding(patcher: ModelPatcher, tokens: object) -> torch.Tensor:
    """What a text encoder that is loaded gives, with the settings of its own."""
    network = patcher.model
    parts = [each for each in network.modules() if hasattr(each, "options_default")]
    before = [{name: getattr(each, name) for name in OPTIONS} for each in parts]
    try:
        network.reset_clip_options()
        network.set_clip_options({"execution_device": patcher.load_device})
        encoded: torch.Tensor = network.encode_token_weights(tokens)[0]
        return encoded.float().cpu()
    finally:
        for each, options in zip(parts, before, strict=True):
            vars(each).update(options)
