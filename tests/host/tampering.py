"""Ways to change what a loaded network computes that no list on its patcher shows.

Each is a function of a patcher that is loaded and of a stack of what undoes it, and comes with what
the canary says of it.
"""

from collections.abc import Callable

import comfy.ldm.modules.attention as attention
import comfy.ldm.modules.diffusionmodules.openaimodel as unet
import torch
from comfy.model_patcher import ModelPatcher
from overwriting import (
    BLOCK,
    LINEAR,
    Undo,
    as_the_base,
    as_the_base_and_the_backup,
    bias,
    bias_function,
    cast,
    no_number,
    norm_weight,
    part,
    patched_weight,
    put,
    scaled,
    table,
    unpatched_weight,
    weight_elsewhere,
    weight_function,
)
from torch.nn.modules.module import register_module_forward_hook

UNNAMED = "an unknown change that is in no list of patches"
Change = Callable[[ModelPatcher, Undo], None]


def forward_of_an_instance(patcher, undo):
    put(undo, part(patcher), "forward", scaled(part(patcher).forward))


def forward_of_a_class(patcher, undo):
    kind = type(part(patcher, f"{BLOCK}.attn2"))
    put(undo, kind, "forward", scaled(kind.forward))


def another_method(patcher, undo):
    """Which the network's own forward calls."""
    network = patcher.model.diffusion_model
    put(undo, network, "_forward", scaled(network._forward))


def replaced_module(patcher, undo):
    put(undo, part(patcher, f"{BLOCK}.attn2"), "to_v", torch.nn.Linear(768, 320, bias=False))


def wrapped_module(patcher, undo):
    class Wrapped(torch.nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, *args, **kwargs):
            return self.inner(*args, **kwargs) * 0.9

    above = part(patcher, BLOCK)
    put(undo, above, "attn2", Wrapped(above.attn2))


def another_class(patcher, undo):
    """A LoRA injected by hand: the layer gets a class of its own."""
    layer = part(patcher)
    kind = type(layer)
    up = torch.randn(320, 320, generator=torch.Generator().manual_seed(1)) * 0.02

    class Injected(kind):
        def forward(self, x):
            return kind.forward(self, x) + x @ up.to(x).T

    undo.callback(setattr, layer, "__class__", kind)
    layer.__class__ = Injected


def hook(patcher, undo):
    undo.callback(part(patcher).register_forward_hook(lambda m, x, y: y * 0.9).remove)


def pre_hook(patcher, undo):
    undo.callback(part(patcher).register_forward_pre_hook(lambda m, x: (x[0] * 0.9,)).remove)


def hook_on_all(patcher, undo):
    """Of torch itself, on every module that there is."""
    norms = torch.nn.LayerNorm

    def halved(module, x, y):
        return y * 0.5 if isinstance(module, norms) else None

    undo.callback(register_module_forward_hook(halved).remove)


def attention_of_the_module(patcher, undo):
    put(undo, attention, "optimized_attention", scaled(attention.optimized_attention))


def attention_scale(patcher, undo):
    """With half the heads each has twice the width, and its scores another scale."""
    put(undo, part(patcher, f"{BLOCK}.attn2"), "heads", 4)


def norm_eps(patcher, undo):
    put(undo, part(patcher, f"{BLOCK}.norm2"), "eps", 1.0)


def time_embedding(patcher, undo):
    own = unet.timestep_embedding
    put(undo, unet, "timestep_embedding", lambda t, *args, **more: own(0.5 * t, *args, **more))


def text_of_the_model(patcher, undo):
    model = patcher.model
    put(undo, model, "extra_conds", lambda **more: spoilt(type(model).extra_conds(model, **more)))


def spoilt(conditions: dict) -> dict:
    """The text's tokens, and the numbers of each in another's place."""
    found = dict(conditions)
    cross = found["c_crossattn"]
    found["c_crossattn"] = type(cross)(cross.cond.flip(2))
    return found


def apply_model(patcher, undo):
    put(undo, patcher.model, "apply_model", scaled(patcher.model.apply_model))


def inner_apply_model(patcher, undo):
    put(undo, patcher.model, "_apply_model", scaled(patcher.model._apply_model))


def swapped(patcher, undo):
    blocks = patcher.model.diffusion_model.middle_block
    first, last = blocks[0], blocks[2]
    for place, block in ((0, last), (2, first)):
        undo.callback(blocks.__setitem__, place, blocks[place])
        blocks[place] = block


def dropout(patcher, undo):
    block = part(patcher, f"{BLOCK}.ff.net.1")
    put(undo, block, "p", 0.5)
    put(undo, block, "training", True)


def linear(patcher, undo):
    """Torch's own, for all layers that there are."""
    put(undo, torch.nn.functional, "linear", scaled(torch.nn.functional.linear))


ATTN2, NET = f"{BLOCK}.attn2", "diffusion_model"
CHANGES: dict[str, tuple[Change, str]] = {
    "forward of an instance": (forward_of_an_instance, f"patched forward of {LINEAR}"),
    "forward of a class": (forward_of_a_class, "patched forward of the class CrossAttention"),
    "another method of the network": (another_method, "patched _forward of the network"),
    "a module, replaced": (replaced_module, f"replaced module {ATTN2}.to_v"),
    "a module, wrapped": (wrapped_module, f"replaced module {ATTN2}"),
    "a LoRA by a class": (another_class, f"replaced module {LINEAR}"),
    "a forward hook": (hook, f"hook on {LINEAR}"),
    "a forward pre-hook": (pre_hook, f"hook on {LINEAR}"),
    "a hook on all modules": (hook_on_all, UNNAMED),
    "patched weights, written over": (patched_weight, "weights written over in"),
    "safety out of the weights in memory": (as_the_base, "weights written over in"),
    "and out of the backup": (as_the_base_and_the_backup, "weights written over in"),
    "a weight without a patch": (unpatched_weight, f"weights written over in {NET}.out.2.weight"),
    "a bias": (bias, f"weights written over in {NET}.{LINEAR}.bias"),
    "another parameter": (weight_elsewhere, f"weights written over in {NET}.out.2.weight"),
    "a buffer": (table, UNNAMED),
    "a weight function": (weight_function, f"function on the weights of {LINEAR}"),
    "a bias function": (bias_function, f"function on the weights of {LINEAR}"),
    "weights rounded to eight bits": (cast, "weights written over in"),
    "the attention of the module": (attention_of_the_module, UNNAMED),
    "the scale of attention": (attention_scale, f"setting heads of {ATTN2}"),
    "a norm's eps": (norm_eps, f"setting eps of {BLOCK}.norm2"),
    "a norm's weight": (norm_weight, f"weights written over in {NET}.{BLOCK}.norm2.weight"),
    "the time embedding": (time_embedding, UNNAMED),
    "what a prompt becomes": (text_of_the_model, "patched extra_conds of the model"),
    "apply_model": (apply_model, "patched apply_model of the model"),
    "_apply_model": (inner_apply_model, "patched _apply_model of the model"),
    "the order of blocks": (swapped, "replaced module middle_block.0"),
    "dropout": (dropout, f"setting training of {BLOCK}.ff.net.1"),
    "torch's own linear": (linear, UNNAMED),
    "a weight that is no number": (no_number, f"weights written over in {NET}.out.2.weight"),
}
