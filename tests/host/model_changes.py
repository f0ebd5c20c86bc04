"""What nodes, stock ones and those of other packs, put on a model: each with a number in it."""

import functools

import comfy.hooks
import comfy_extras.nodes_freelunch as freelunch
import comfy_extras.nodes_hooks as hooks
import comfy_extras.nodes_lora_debug as bypass
import comfy_extras.nodes_model_advanced as advanced
import torch
from comfy.patcher_extension import PatcherInjection, WrappersMP

import nodes


class Scaling:
    """What packs put on models: an object with a setting."""

    def __init__(self, scale):
        self.scale = scale

    def __call__(self, *args):
        return args[0] * self.scale

    def wrap(self, executor, *args, **kwargs):
        return executor(*args, **kwargs) * self.scale


class Slots:
    __slots__ = ("scale",)

    def __init__(self, scale):
        self.scale = scale


def patched(method: str, make, *more):
    """A clone on which `method` puts what `make` makes of a number."""

    def on(stage, number, model=None):
        changed = (model or stage.base).clone()
        getattr(changed, method)(*more, make(number))
        return changed

    return on


def closure(number):
    return lambda args: args["denoised"] * number


def default(number):
    return lambda args, scale=number: args["denoised"] * scale


def deep(number):
    """A setting two closures down, in a tensor of more values than a sample of it has."""
    held = torch.ones(100_000)
    held[77_777] = number
    return functools.partial(lambda inner, args: inner(args), lambda args: args["denoised"] * held)


def constant(number):
    body = {1: lambda args: args["denoised"] * 1, 2: lambda args: args["denoised"] * 2}
    return body[number]


def injected(stage, number, model=None):
    changed = (model or stage.base).clone()
    mine = Scaling(number)
    changed.set_injections("mine", [PatcherInjection(mine.wrap, mine.wrap)])
    return changed


def hooked(stage, number, model=None):
    changed = (model or stage.base).clone()
    group = hooks.CreateHookLora().create_hook(stage.file, float(number), 0.0)[0]
    target = comfy.hooks.create_target_dict(comfy.hooks.EnumWeightTarget.Model)
    changed.register_all_hook_patches(group, target)
    return changed


def beside(stage, number, model=None):
    changed = (model or stage.base).clone()
    changed.set_additional_models("mine", [lora(stage, number)])
    return changed


def lora(stage, number, model=None):
    model = model or stage.base
    return nodes.LoraLoaderModelOnly().load_lora_model_only(model, stage.file, 0.1 * number)[0]


def bypassed(stage, number, model=None):
    loader = bypass.LoraLoaderBypassModelOnly()
    return loader.load_lora_model_only(model or stage.base, stage.file, 0.1 * number)[0]


def shifted(stage, number, model=None):
    return advanced.ModelSamplingSD3().patch(model or stage.base, 6.0 * number)[0]


def rescaled(stage, number, model=None):
    return advanced.RescaleCFG().patch(model or stage.base, number - 1.0)[0]


def freed(stage, number, model=None):
    return freelunch.FreeU.execute(model or stage.base, 5.0 * number, 1.0, 0.9, 0.2).args[0]


CHANGES = {
    "a LoRA": lora,
    "a bypass LoRA": bypassed,
    "ModelSamplingSD3": shifted,
    "RescaleCFG": rescaled,
    "FreeU": freed,
    "a hook": hooked,
    "a model beside it": beside,
    "an injection": injected,
    "a wrapper": patched(
        "add_wrapper_with_key", lambda n: Scaling(n).wrap, WrappersMP.APPLY_MODEL, "mine"
    ),
    "a callback": patched("add_callback_with_key", lambda n: Scaling(n).wrap, "on_load", "mine"),
    "a weight wrapper": patched("add_weight_wrapper", Scaling, "diffusion_model.out.2.weight"),
    "an object patch": patched("add_object_patch", closure, "process_latent_out"),
    "an attachment": patched("set_attachments", Scaling, "mine"),
    "a closure": patched("set_model_sampler_post_cfg_function", closure),
    "a default": patched("set_model_sampler_post_cfg_function", default),
    "a deep closure": patched("set_model_sampler_post_cfg_function", deep),
    "a constant": patched("set_model_sampler_post_cfg_function", constant),
    "slots": patched("set_attachments", Slots, "mine"),
    "a network": patched("set_attachments", lambda n: seeded(n), "mine"),
}


def seeded(number: int) -> torch.nn.Module:
    layer = torch.nn.Linear(2, 2)
    torch.nn.init.constant_(layer.weight, 1.0)
    torch.nn.init.constant_(layer.bias, float(number))
    return torch.nn.Sequential(layer)
