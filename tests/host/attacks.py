"""Ways to undo a safety module with a stock ComfyUI's nodes.

Each is a function of a `Stage` and gives the `Run` that a person would then queue. `ATTACKS` must
be stopped, `BEYOND` gets past the lock and is declared in docs/threat-model.md.
"""

from collections.abc import Callable
from dataclasses import replace

import comfy_extras.nodes_attention_multiply as multiply
import comfy_extras.nodes_hooks as hooks
import comfy_extras.nodes_lora_debug as bypass
import comfy_extras.nodes_model_merging as mixing
from attack_parts import (
    bypassed,
    cancelling,
    clip_hooked,
    large,
    left_behind,
    left_in_the_text,
    moved,
    properties,
    recompiled,
    repaid,
    saved,
    text_hooked,
    warm,
)
from attack_stage import Run, Stage, blocks, load
from modular_safety_lora.merge.merge import merge

import nodes

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
    "Load Task LoRA with one layer of it": lambda s: s.run(s.merged(s.against(s.layer)).model),
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
        mixing.ModelSubtract().merge(s.locked, s.merged().model, 1.0)[0]
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
        clip=mixing.CLIPSubtract().merge(s.locked_clip, s.merged().clip, 1.0)[0]
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
    "DualModelGuider whose second model holds another safety LoRA": lambda s: s.run(
        second=s.dummy()
    ),
    "DualModelGuider whose second merge starts from a LoraLoader with it": (
        lambda s: s.run(second=s.merged(model=load(s, s.base, 1.0)[0]).model)
    ),
    "DualModelGuider whose second merge has it as a task": lambda s: s.run(
        second=s.merged(s.against("", strength=1.0)).model
    ),
    "TorchCompileModel, then another network under it (SelectModelDevice)": lambda s: s.run(
        recompiled(s)
    ),
    "SelectCLIPDevice on the merged text encoder": lambda s: s.run(clip=moved(s.locked_clip)),
    "SelectCLIPDevice before the merge": lambda s: s.run(
        clip=merge(s.base, [s.safety], (), moved(s.base_clip)).clip, model=s.locked
    ),
    "LoraLoaderBypassModelOnly with it, left on the network by clones": left_behind,
    "LoraLoaderBypass with it, left on the text encoder by clones": left_in_the_text,
    "A second Modular Merge with it as a task": lambda s: s.run(
        s.merged(s.against(""), model=s.locked).model
    ),
}
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
        "the safety LoRA is whole, on weights that hold its opposite",
        lambda s: s.run(cancelling(s)),
    ),
    "DualModelGuider on the base with the merged model as its second": (
        "the model that leads the guider never went through Modular Merge",
        lambda s: s.run(s.base, second=s.locked),
    ),
}
