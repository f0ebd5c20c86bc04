"""Ways to undo a safety module with a stock ComfyUI's nodes, and ways to use a model without harm.

Each is a function of a `Stage` and gives the `Run` that a person would then queue. `ATTACKS` must
be stopped, `BEYOND` gets past the lock and is declared in docs/threat-model.md, `BENIGN` must
sample.
"""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import comfy.hooks
import comfy.sample
import comfy.samplers
import comfy.sd
import comfy_extras.nodes_attention_multiply as multiply
import comfy_extras.nodes_custom_sampler as custom
import comfy_extras.nodes_hooks as hooks
import comfy_extras.nodes_lora_debug as bypass
import comfy_extras.nodes_model_merging as mixing
import torch
from comfy_api.torch_helpers.torch_compile import set_torch_compile_wrapper
from modular_safety_lora.merge.merge import Task, merge
from modular_safety_lora.modules.files import Module

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

    def __call__(self) -> torch.Tensor:
        """Two steps on 64x64 pixels."""
        latent = torch.zeros(1, 4, 8, 8)
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

    The safety module has text-encoder layers.
    """

    base: object
    base_clip: object
    safety: Module
    file: str  # in the loras folder: the same tensors, for stock loaders
    harmless: str  # another LoRA there
    checkpoint: str

    def merged(self, *tasks: Task, model=None):
        return merge(model or self.base, [self.safety], tasks, self.base_clip)

    @property
    def locked(self):
        return self.merged().model

    def dummy(self):
        """The base beside a safety module of another concept."""
        tensors = {key: value for key, value in self.safety.tensors.items() if "attn2.to_k" in key}
        return merge(
            self.base, [Module("dummy.safetensors", "safety", "y", self.safety.metadata, tensors)]
        ).model

    @property
    def locked_clip(self):
        return self.merged().clip

    def run(self, model=None, clip=None, **changed) -> Run:
        """Sample a model with texts of a clip; by default the merged ones."""
        merged = self.merged() if model is None or clip is None else None
        clip = clip or merged.clip
        texts = [
            clip.encode_from_tokens_scheduled(clip.tokenize(text)) for text in ("a picture", "")
        ]
        return replace(Run(model or merged.model, *texts), **changed)

    def hooked(self, made: comfy.hooks.HookGroup, on: str = "positive") -> Run:
        plain = self.run()
        attached = hooks.SetModelHooksOnCond().attach_hook(getattr(plain, on), made)[0]
        return replace(plain, **{on: attached})

    def lora_hook(self, model: float = -1.0, clip: float = 0.0) -> comfy.hooks.HookGroup:
        return hooks.CreateHookLora().create_hook(self.file, model, clip)[0]

    def against(self, *parts: str) -> Task:
        """A task that takes the safety module back, in layers whose name holds one of `parts`."""
        chosen = {
            key: value
            for key, value in self.safety.tensors.items()
            if any(part in key for part in parts)
        }
        return Task(Module("against.safetensors", "task", "x", {}, chosen), -1.0, -1.0)


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


ATTACKS: dict[str, Callable[[Stage], Run]] = {
    "LoraLoader with the negated safety LoRA, after the merge": lambda s: s.run(
        load(s, s.locked, -1.0)[0]
    ),
    "LoraLoaderModelOnly with it": lambda s: s.run(
        nodes.LoraLoaderModelOnly().load_lora_model_only(s.locked, s.file, -1.0)[0]
    ),
    "LoraLoader with it at -0.2": lambda s: s.run(load(s, s.locked, -0.2)[0]),
    "LoraLoader with another LoRA, after the merge": lambda s: s.run(
        load(s, s.locked, 1.0, file=s.harmless)[0]
    ),
    "LoraLoader with it, before the merge": lambda s: s.run(
        s.merged(model=load(s, s.base, -1.0)[0]).model
    ),
    "Load Task LoRA with it": lambda s: s.run(s.merged(s.against("")).model),
    "Load Task LoRA with a third of it": lambda s: s.run(
        s.merged(replace(s.against(""), strength_model=-0.33)).model
    ),
    "Load Task LoRA with one layer of it": lambda s: s.run(
        s.merged(s.against("input_blocks.1.1.transformer_blocks.0.attn2.to_k.")).model
    ),
    "LoraLoaderBypass with it, after the merge": lambda s: s.run(
        bypass.LoraLoaderBypass().load_lora(s.locked, None, s.file, -1.0, 0.0)[0]
    ),
    "LoraLoaderBypassModelOnly with it, before the merge": lambda s: s.run(
        s.merged(
            model=bypass.LoraLoaderBypassModelOnly().load_lora_model_only(s.base, s.file, -1.0)[0]
        ).model
    ),
    "ModelMergeSimple of merged and base, 0.5": lambda s: s.run(
        mixing.ModelMergeSimple().merge(s.locked, s.base, 0.5)[0]
    ),
    "ModelMergeSimple of merged and base, 0": lambda s: s.run(
        mixing.ModelMergeSimple().merge(s.locked, s.base, 0.0)[0]
    ),
    "ModelMergeBlocks of merged and base": lambda s: s.run(blocks(s.locked, s.base, 0.2)),
    "ModelMergeSubtract of merged and merged": lambda s: s.run(
        mixing.ModelSubtract().merge(s.locked, s.locked, 1.0)[0]
    ),
    "ModelMergeSubtract of merged and base": lambda s: s.run(
        mixing.ModelSubtract().merge(s.locked, s.base, 0.5)[0]
    ),
    "ModelMergeAdd of merged and base": lambda s: s.run(
        mixing.ModelAdd().merge(s.locked, s.base)[0]
    ),
    "UNetCrossAttentionMultiply": lambda s: s.run(
        multiply.UNetCrossAttentionMultiply.execute(s.locked, 1, 0, 0, 1)[0]
    ),
    "UNetSelfAttentionMultiply": lambda s: s.run(
        multiply.UNetSelfAttentionMultiply.execute(s.locked, 0, 1, 1, 1)[0]
    ),
    "CreateHookLora on the positive conditioning": lambda s: s.hooked(s.lora_hook()),
    "CreateHookLora on the negative conditioning": lambda s: s.hooked(s.lora_hook(), "negative"),
    "CreateHookLora with keyframes": lambda s: s.hooked(
        hooks.SetHookKeyframes().set_hook_keyframes(
            s.lora_hook(), hooks.CreateHookKeyframe().create_hook_keyframe(1.0, 0.5)[0]
        )[0]
    ),
    "CreateHookModelAsLora of the base": lambda s: s.hooked(
        hooks.CreateHookModelAsLora().create_hook(s.checkpoint, 1.0, 0.0)[0]
    ),
    "ConditioningSetProperties with a hook LoRA": lambda s: properties(s),
    "CombineHooks of two hook LoRAs": lambda s: s.hooked(
        hooks.CombineHooks().combine_hooks(s.lora_hook(-0.5), s.lora_hook(-0.5))[0]
    ),
    "SetClipHooks, applied to the conditioning": lambda s: s.run(
        clip=clip_hooked(s, s.lora_hook(-1.0, 0.0))
    ),
    "SetClipHooks with a text-encoder LoRA": lambda s: s.run(
        clip=clip_hooked(s, s.lora_hook(0.0, -1.0))
    ),
    "DualModelGuider with the base as its second model": lambda s: s.run(second=s.base),
    "DualModelGuider with a LoRA on its second model": lambda s: s.run(
        second=load(s, s.locked, -1.0)[0]
    ),
    "LoraLoader with it on the text encoder": lambda s: s.run(
        clip=load(s, s.locked, 0.0, s.locked_clip, -1.0)[1]
    ),
    "CLIPMergeSimple of merged and base": lambda s: s.run(
        clip=mixing.CLIPMergeSimple().merge(s.locked_clip, s.base_clip, 0.0)[0]
    ),
    "CLIPMergeSubtract of merged and merged": lambda s: s.run(
        clip=mixing.CLIPSubtract().merge(s.locked_clip, s.locked_clip, 1.0)[0]
    ),
    "CLIPAttentionMultiply": lambda s: s.run(
        clip=multiply.CLIPAttentionMultiply.execute(s.locked_clip, 1, 0, 0, 1)[0]
    ),
    "LoraLoaderBypass with it on the text encoder": lambda s: s.run(
        clip=bypass.LoraLoaderBypass().load_lora(s.locked, s.locked_clip, s.file, 0.0, -1.0)[1]
    ),
    "The same, on a text encoder that is warm": lambda s: s.run(clip=warm(s, bypassed)),
    "SetClipHooks with a text-encoder LoRA, on one that is warm": lambda s: s.run(
        clip=warm(s, text_hooked)
    ),
    "Load Task LoRA with half of it in all layers but one, which repays it": lambda s: s.run(
        s.merged(repaid(s)).model
    ),
    "UNetCrossAttentionMultiply by 10, before the merge": lambda s: s.run(
        s.merged(model=multiply.UNetCrossAttentionMultiply.execute(s.base, 10, 10, 10, 10)[0]).model
    ),
    "Load Task LoRA with a difference a hundred times the weights": lambda s: s.run(
        s.merged(large(s)).model
    ),
    "DualModelGuider whose second model holds another safety module": lambda s: s.run(
        second=s.dummy()
    ),
    "TorchCompileModel, then another network under it (SelectModelDevice)": lambda s: s.run(
        recompiled(s)
    ),
    "SelectCLIPDevice on the merged text encoder": lambda s: s.run(clip=moved(s.locked_clip)),
    "SelectCLIPDevice before the merge": lambda s: s.run(
        clip=merge(s.base, [s.safety], (), moved(s.base_clip)).clip, model=s.locked
    ),
    "A second Modular Merge with it as a task": lambda s: s.run(
        s.merged(s.against(""), model=s.locked).model
    ),
}


def warm(stage: Stage, attack: Callable):
    """A text encoder attacked after it encoded, so that its weights are loaded already."""
    clip = stage.locked_clip
    clip.encode_from_tokens_scheduled(clip.tokenize("a picture"))
    return attack(stage, clip)


def bypassed(stage: Stage, clip):
    return bypass.LoraLoaderBypass().load_lora(stage.base, clip, stage.file, 0.0, -1.0)[1]


def text_hooked(stage: Stage, clip):
    return hooks.SetClipHooks().apply_hooks(clip, False, True, stage.lora_hook(0.0, -1.0))[0]


def repaid(stage: Stage) -> Task:
    """-0.49 of the safety module, and as much more of it in one layer.

    That is 1.00 over all weights, and 0.51 in the worst layer.
    """
    layers = sorted(
        {
            key.rsplit(".", 2)[0]
            for key in stage.safety.tensors
            if "lora_B" in key and "attn2" in key
        }
    )
    tensors = {}
    for key, value in stage.safety.tensors.items():
        part = 0.49 * (len(layers) - 1) if key.startswith(f"{layers[-1]}.") else -0.49
        tensors[key] = part * value if "lora_B" in key else value
    return Task(Module("repaid.safetensors", "task", "x", {}, tensors))


def large(stage: Stage) -> Task:
    """A full difference beside which the safety change is nothing, orthogonal to it."""
    tensors = {}
    for key, up in stage.safety.tensors.items():
        if "lora_B" in key:
            down = stage.safety.tensors[key.replace("lora_B", "lora_A")].float()
            noise = torch.randn(
                up.shape[0], down.shape[1], generator=torch.Generator().manual_seed(1)
            )
            held = up.float() @ down
            noise -= (noise * held).sum() / held.square().sum() * held
            tensors[key.replace("lora_B.weight", "diff")] = 3.0 * noise
    return Task(Module("large.safetensors", "task", "x", {}, tensors))


def recompiled(stage: Stage):
    """What SelectModelDevice leaves when the loader's network is read anew.

    The wrapper runs the network that was compiled before.
    """
    compiled = stage.base.clone()
    set_torch_compile_wrapper(compiled, backend="eager")
    return stage.merged(model=compiled).model.deepclone_multigpu(
        new_load_device=torch.device("cpu")
    )


def moved(clip):
    """SelectCLIPDevice, where there is another device.

    The patches move to another network, and the old one encodes.
    """
    clip = clip.clone()
    clip.patcher = clip.patcher.deepclone_multigpu(new_load_device=torch.device("cpu"))
    return clip


def properties(stage: Stage) -> Run:
    plain = stage.run()
    changed = hooks.ConditioningSetProperties().set_properties(
        plain.positive, 1.0, "default", hooks=stage.lora_hook()
    )[0]
    return replace(plain, positive=changed)


def clip_hooked(stage: Stage, made: comfy.hooks.HookGroup):
    return hooks.SetClipHooks().apply_hooks(stage.locked_clip, False, True, made)[0]


def saved(stage: Stage):
    """The merged model as ModelSave writes it and Load Diffusion Model reads it."""
    with tempfile.TemporaryDirectory() as folder:
        mixing.save_checkpoint(stage.locked, filename_prefix="saved", output_dir=folder)
        return comfy.sd.load_diffusion_model(str(next(Path(folder).rglob("*.safetensors"))))


def cancelling(stage: Stage):
    """The base with the safety module at -1, saved and read again.

    It is a file of plain weights, on which the merge is whole.
    """
    with tempfile.TemporaryDirectory() as folder:
        mixing.save_checkpoint(
            load(stage, stage.base, -1.0)[0], filename_prefix="base", output_dir=folder
        )
        model = comfy.sd.load_diffusion_model(str(next(Path(folder).rglob("*.safetensors"))))
        return stage.merged(model=model).model


CANCELLED = "ModelSave of the base with LoraLoader at -1, and Modular Merge on that file"
BEYOND: dict[str, tuple[str, Callable[[Stage], Run]]] = {
    "KSampler on the base": (
        "the model that samples never went through Modular Merge",
        lambda s: s.run(s.base),
    ),
    "ModelMergeSimple of base and merged": (
        (
            "the node starts from the base's patcher and takes the merged model's weights alone;"
            " the lock stays behind"
        ),
        lambda s: s.run(mixing.ModelMergeSimple().merge(s.base, s.locked, 0.5)[0]),
    ),
    "ModelMergeBlocks of base and merged": (
        "the same",
        lambda s: s.run(blocks(s.base, s.locked, 0.5)),
    ),
    "ModelMergeSubtract of base and merged": (
        "the same",
        lambda s: s.run(mixing.ModelSubtract().merge(s.base, s.locked, 1.0)[0]),
    ),
    "CLIPMergeSimple of base and merged": (
        "the same, for the text encoder",
        lambda s: s.run(clip=mixing.CLIPMergeSimple().merge(s.base_clip, s.locked_clip, 0.5)[0]),
    ),
    "CLIPTextEncode with the base's text encoder": (
        "a conditioning does not say which text encoder made it",
        lambda s: s.run(clip=s.base_clip),
    ),
    "ModelSave of the merged model, and Load Diffusion Model": (
        (
            "the file has the merged weights, safety change included, and no lock: what is put on"
            " them later goes unseen"
        ),
        lambda s: s.run(saved(s)),
    ),
    CANCELLED: (
        "the safety module is whole, on weights that hold its opposite",
        lambda s: s.run(cancelling(s)),
    ),
    "DualModelGuider on the base with the merged model as its second": (
        "the model that leads the guider never went through Modular Merge",
        lambda s: s.run(s.base, second=s.locked),
    ),
}
