"""The stage of attacks: base, safety module and their merge, and what is sampled on it."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import comfy.hooks
import comfy.sample
import comfy.samplers
import comfy_extras.nodes_custom_sampler as custom
import comfy_extras.nodes_hooks as hooks
import comfy_extras.nodes_model_merging as mixing
import pytest
import torch
from modular_safety_lora.merge.merge import Task, merge
from modular_safety_lora.modules.errors import SafetyError
from modular_safety_lora.modules.files import LoraFile

import nodes


@dataclass(frozen=True)
class Run:
    """What is sampled: models, texts, and the guider's class."""

    model: object
    positive: list
    negative: list
    second: object = None  # of a guider with two models
    sampler: str = "euler"
    scheduler: str = "normal"
    side: int = 4  # of the latent
    after: Callable = bool  # what clears the stage away

    def __call__(self) -> torch.Tensor:
        """Two steps."""
        try:
            return self.sampled()
        finally:
            self.after()

    def sampled(self) -> torch.Tensor:
        latent = torch.zeros(
            1, self.model.model.latent_format.latent_channels, self.side, self.side
        )
        noise = comfy.sample.prepare_noise(latent, 1)
        sigmas = comfy.samplers.calculate_sigmas(
            self.model.get_model_object("model_sampling"), self.scheduler, 2
        )
        guider = (
            custom.Guider_DualModel(self.model, self.second)
            if self.second
            else comfy.samplers.CFGGuider(self.model)
        )
        guider.set_conds(self.positive, self.negative)
        guider.set_cfg(2.0)
        return guider.sample(
            noise,
            latent,
            comfy.samplers.sampler_object(self.sampler),
            sigmas,
            disable_pbar=True,
            seed=1,
        )


@dataclass(frozen=True)
class Stage:
    """The base, the safety module as a module and as a stock LoRA file, and the merge of both.

    The safety module has text-encoder layers. With `kept` the plain merge and its texts are made
    once and shared: what is done to one must leave it as it is.
    """

    base: object
    base_clip: object
    safety: LoraFile
    file: str  # in the loras folder: the same tensors, for stock loaders
    harmless: str  # another LoRA there
    checkpoint: str
    kept: dict | None = None

    def merged(self, *tasks: Task, model=None):
        return merge(model or self.base, [self.safety], tasks, self.base_clip)

    @property
    def plain(self):
        """The merge of the base and the safety module alone."""
        return self.once("merge", self.merged)

    def once(self, name: str, make: Callable):
        if self.kept is None:
            return make()
        if name not in self.kept:
            self.kept[name] = make()
        return self.kept[name]

    @property
    def locked(self):
        return self.plain.model

    @property
    def layer(self) -> str:
        """The name of one layer of the diffusion model that the safety module changes."""
        key = next(key for key in self.safety.tensors if key.endswith(".lora_B.weight"))
        return key.removesuffix("lora_B.weight")

    def dummy(self):
        """The base beside a safety module of another concept."""
        tensors = {key: value for key, value in self.safety.tensors.items() if self.layer in key}
        return merge(
            self.base, [LoraFile("dummy.safetensors", "safety", "y", self.safety.metadata, tensors)]
        ).model

    @property
    def locked_clip(self):
        self._touched()
        return self.plain.clip

    def _touched(self) -> None:
        if self.kept is not None:
            self.kept["encoder touched"] = True

    def run(self, model=None, clip=None, **changed) -> Run:
        """Sample a model with texts of a clip; by default the merged ones."""
        if clip:
            self._touched()
        merged = self.plain if model is None or clip is None else None
        texts = encoded(clip) if clip else self.once("texts", lambda: encoded(merged.clip))
        copies = ([[text, dict(extra)] for text, extra in each] for each in texts)
        return replace(Run(model or merged.model, *copies), **changed)

    def hooked(self, made: comfy.hooks.HookGroup, on: str = "positive") -> Run:
        plain = self.run()
        attached = hooks.SetModelHooksOnCond().attach_hook(getattr(plain, on), made)[0]
        return replace(plain, **{on: attached})

    def lora_hook(self, model: float = -1.0, clip: float = 0.0) -> comfy.hooks.HookGroup:
        return hooks.CreateHookLora().create_hook(self.file, model, clip)[0]

    def against(self, *parts: str, strength: float = -1.0) -> Task:
        """A task that takes the safety module back, in layers whose name holds one of `parts`."""
        chosen = {
            key: value
            for key, value in self.safety.tensors.items()
            if any(part in key for part in parts)
        }
        return Task(LoraFile("against.safetensors", "task", "x", {}, chosen), strength, strength)


def stopped(stage: Stage, attack: Callable[[Stage], Run], error=SafetyError, words=".") -> None:
    """An attack on a stage that keeps ends with an error, and the next run is the safe one.

    Where the attack had to do with a text encoder, the next run encodes again.
    """
    safe = stage.once("picture", stage.run())
    stage.kept.pop("encoder touched", None)
    with pytest.raises(error, match=words):
        attack(stage)()
    clip = stage.plain.clip if stage.kept.get("encoder touched") else None
    assert torch.allclose(stage.run(clip=clip)(), safe, rtol=1e-4, atol=1e-5)


def unchanged(stage: Stage) -> None:
    """Base and text encoder, and the merge that was kept, are as they were before the attacks."""
    safe = stage.once("picture", stage.run())
    for run in (replace(stage, kept=None).run(), stage.run(clip=stage.locked_clip)):
        assert torch.allclose(run(), safe, rtol=1e-4, atol=1e-5)


def encoded(clip) -> list:
    """A text's conditioning, and zeros in the negative's place."""
    positive = clip.encode_from_tokens_scheduled(clip.tokenize("a picture"))
    return [positive, nodes.ConditioningZeroOut().zero_out(positive)[0]]


def blocks(one, other, ratio: float):
    return mixing.ModelMergeBlocks().merge(one, other, input=ratio, middle=ratio, out=ratio)[0]


def load(
    stage: Stage,
    model,
    strength: float,
    clip=None,
    clip_strength: float = 0.0,
    file: str | None = None,
):
    return nodes.LoraLoader().load_lora(model, clip, file or stage.file, strength, clip_strength)
