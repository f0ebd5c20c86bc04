"""What attacks on a stage make: tasks, models and text encoders that undo the safety module."""

import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import comfy.hooks
import comfy.sd
import comfy_extras.nodes_hooks as hooks
import comfy_extras.nodes_lora_debug as bypass
import comfy_extras.nodes_model_advanced as advanced
import comfy_extras.nodes_model_merging as mixing
import torch
from attack_stage import Run, Stage, encoded, load
from comfy_api.torch_helpers.torch_compile import set_torch_compile_wrapper
from modular_safety_lora.merge.merge import Task
from modular_safety_lora.modules.files import LoraFile

import nodes


def warm(stage: Stage, attack: Callable):
    """A text encoder attacked after it encoded, so that its weights are loaded already."""
    clip = stage.locked_clip
    clip.encode_from_tokens_scheduled(clip.tokenize("a picture"))
    return attack(stage, clip)


def bypassed(stage: Stage, clip):
    return bypass.LoraLoaderBypass().load_lora(stage.base, clip, stage.file, 0.0, -1.0)[1]


def left_behind(stage: Stage) -> Run:
    """The merged model, after the host left a bypass of the negated module on the network.

    A clone of the model that was loaded with it says that it is injected; a LoRA that is put on
    that clone injects it for good.
    """
    undone = bypass.LoraLoaderBypassModelOnly().load_lora_model_only(stage.base, stage.file, -1.0)
    stage.run(*undone)()
    clone = advanced.ModelSamplingDiscrete().patch(*undone, "eps", False)[0]
    run = stage.run()
    run()
    injects = nodes.LoraLoaderModelOnly().load_lora_model_only(clone, stage.harmless, 1.0)[0]
    return replace(run, after=injects.eject_model)


def left_in_the_text(stage: Stage) -> Run:
    """The same on the text encoder."""
    undone = bypassed(stage, stage.base_clip)
    encoded(undone)
    clone = nodes.CLIPSetLastLayer().set_last_layer(undone, -1)[0]
    clip = stage.locked_clip
    encoded(clip)
    injects = load(stage, stage.base, 0.0, clone, 1.0, file=stage.harmless)[1].patcher
    try:
        return stage.run(clip=clip)
    finally:
        injects.eject_model()


def text_hooked(stage: Stage, clip):
    return hooks.SetClipHooks().apply_hooks(clip, False, True, stage.lora_hook(0.0, -1.0))[0]


def repaid(stage: Stage) -> Task:
    """-0.49 of the safety module, and as much more of it in one layer.

    That is 1.00 over all weights, and 0.51 in the worst layer.
    """
    layers = sorted({key.rsplit(".", 2)[0] for key in stage.safety.tensors if "lora_B" in key})
    tensors = {}
    for key, value in stage.safety.tensors.items():
        part = 0.49 * (len(layers) - 1) if key.startswith(f"{layers[-1]}.") else -0.49
        tensors[key] = part * value if "lora_B" in key else value
    return Task(LoraFile("repaid.safetensors", "task", "x", {}, tensors))


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
    return Task(LoraFile("large.safetensors", "task", "x", {}, tensors))


def recompiled(stage: Stage):
    """What SelectModelDevice leaves when the loader's network is read again.

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


def cancelling_file(stage: Stage, folder: Path) -> Path:
    """The base with the safety module at -1, saved: a file of plain weights."""
    undone = load(stage, stage.base, -1.0)[0]
    mixing.save_checkpoint(undone, filename_prefix="base", output_dir=str(folder))
    return next(folder.rglob("base_*.safetensors"))


def cancelling(stage: Stage):
    """That file read again; the merge on it is whole."""
    with tempfile.TemporaryDirectory() as folder:
        model = comfy.sd.load_diffusion_model(str(cancelling_file(stage, Path(folder))))
        return stage.merged(model=model).model
