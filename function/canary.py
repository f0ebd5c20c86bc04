"""A canary: one forward of a locked network on a kept input, at every sampling.

The lists on a patcher say what should compute; this says what does. Nothing of the graph takes part
in it, no patch of attention, no wrapper, no guidance: the network alone, as it is loaded, against
what it gave when it was merged. A compiled network is not compiled again for it: what is run is the
network that was compiled.
"""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from comfy.model_patcher import ModelPatcher

from ..host.denoiser import Denoiser, in_output
from ..host.lending import load_for
from .naming import Seen, changed, seen
from .network import SAMPLING

# How far an output may be from what it was, as a share of its size: what the precision alone does
# (measured by tests/host/test_canary.py over other ways to load the same).
TOLERANCE = {torch.float32: 0.005, torch.float16: 0.02, torch.bfloat16: 0.06}
COARSE = 0.12  # where weights are held in eight bits or four, and rounded again when patched
OPTIONS = ("layer", "layer_idx", "return_projected_pooled", "execution_device")
LOST = 0.25  # of the safety module's effect: noise has next to no part in this one direction


@dataclass(frozen=True)
class Canary:
    """A kept input and its CONDITIONING, and y of the locked network there; all on the CPU.

    `unsafe` is y of the base, or None where it was not measured. `sampling` is the model's own at
    the merge: a node may put another one on a model that is locked, and may do so.
    """

    noisy: torch.Tensor
    sigma: torch.Tensor
    conditioning: list
    sampling: torch.nn.Module
    unsafe: torch.Tensor | None
    is_coarse: bool
    seen: Seen
    y: torch.Tensor | None = None

    def faults(self, patcher: ModelPatcher) -> list[str]:
        """What computes now and did not at the merge, in words; empty when nothing does."""
        now = self.forward(patcher, patcher.model.apply_model)
        off = ((now - self.y).norm() / self.y.norm()).item()
        lost = 0.0 if self.unsafe is None else _lost(now, self.y, self.unsafe)
        # not (a > b): a number that is none counts as changed
        if off <= self._tolerance(patcher) and lost <= LOST:
            return []
        how = f"its output is {off:.0%} from what it was at the merge"
        if not lost <= LOST:
            how += f", {lost:.0%} of the safety module's effect is gone"
        return [f"{each} ({how})" for each in changed(self.seen, patcher)] or [
            f"something that no list on the model shows ({how})"
        ]

    def _tolerance(self, patcher: ModelPatcher) -> float:
        if self.is_coarse:
            return COARSE
        return TOLERANCE.get(patcher.model.get_dtype_inference(), TOLERANCE[torch.bfloat16])

    @torch.inference_mode()
    def forward(self, patcher: ModelPatcher, apply: Callable) -> torch.Tensor:
        """y of a model that is loaded; `apply` is its `apply_model`, or what is in its place."""
        denoiser = Denoiser.of_loaded(patcher)
        noisy, sigma = self.noisy.to(denoiser.device), self.sigma.to(denoiser.device)
        with _sampled_by(patcher.model, self.sampling):
            given = denoiser.conditions([self.conditioning], noisy)[0][1]
            denoised = apply(noisy, sigma, transformer_options={}, **given)
        return in_output(self.sampling, denoised, noisy, sigma).cpu()


def canary(
    model: ModelPatcher,
    pictures: tuple[torch.Tensor, torch.Tensor],
    conditioning: list,
    *,
    unsafe: torch.Tensor | None = None,
    y: torch.Tensor | None = None,
) -> Canary:
    """A canary of a locked model: x (1, C, ...) and sigma (1,), and y there of it and of the base.

    Without `y` the model is loaded and run.
    """
    x, sigma = pictures
    sampling, network = model.get_model_object(SAMPLING), model.model.diffusion_model
    made = Canary(x, sigma, conditioning, sampling, unsafe, _is_coarse(network), seen(model), y)
    if y is not None:
        return made
    load_for(model, x.shape)
    # not through `apply_model`: a policy on what samples does not forbid to look
    return replace(made, y=made.forward(model, model.model._apply_model))


def _is_coarse(network: torch.nn.Module) -> bool:
    """Whether weights are held in eight bits or four."""
    return any(each.dtype.itemsize == 1 for each in network.parameters()) or any(
        getattr(each, "quant_format", None) for each in network.modules()
    )


@contextlib.contextmanager
def _sampled_by(model: torch.nn.Module, sampling: torch.nn.Module) -> Iterator[None]:
    """A model whose sampling is this for a block."""
    now = model.model_sampling
    model.model_sampling = sampling
    try:
        yield
    finally:
        model.model_sampling = now


def _lost(now: torch.Tensor, then: torch.Tensor, unsafe: torch.Tensor) -> float:
    """How far y went from the locked network's towards the base's, as a share of the way."""
    way = (unsafe - then).double().flatten()
    square = way.dot(way).item()
    return ((now - then).double().flatten().dot(way) / square).item() if square else 0.0


@dataclass(frozen=True)
class TextCanary:
    """A kept prompt's tokens, and what the locked text encoder gave for them."""

    tokens: object
    seen: Seen
    y: torch.Tensor | None = None

    def faults(self, patcher: ModelPatcher) -> list[str]:
        now = self.forward(patcher)
        off = ((now - self.y).norm() / self.y.norm()).item()
        held = {each.dtype for each in patcher.model.parameters() if each.is_floating_point()}
        if off <= max(TOLERANCE.get(each, COARSE) for each in held):
            return []
        how = f"its output is {off:.0%} from what it was at the merge"
        return [f"{each} ({how})" for each in changed(self.seen, patcher)] or [
            f"something that no list on the text encoder shows ({how})"
        ]

    @torch.inference_mode()
    def forward(self, patcher: ModelPatcher) -> torch.Tensor:
        """What a text encoder that is loaded gives, with the settings of its own."""
        network = patcher.model
        parts = [each for each in network.modules() if hasattr(each, "options_default")]
        before = [{name: getattr(each, name) for name in OPTIONS} for each in parts]
        try:
            network.reset_clip_options()
            network.set_clip_options({"execution_device": patcher.load_device})
            return network.encode_token_weights(self.tokens)[0].float().cpu()
        finally:
            for each, options in zip(parts, before, strict=True):
                vars(each).update(options)


def text_canary(clip, prompt: str) -> TextCanary:
    """A canary of a CLIP with everything on it and no lock, which is loaded."""
    made = TextCanary(clip.tokenize(prompt), seen(clip.patcher))
    clip.load_model(made.tokens)
    return replace(made, y=made.forward(clip.patcher))
