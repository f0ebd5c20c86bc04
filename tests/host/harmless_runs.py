"""What people do beside a locked model that means no harm: each must sample as ever after it.

Each is a function of a `Held` merge (canaries.py); what it samples itself must not be stopped
either.
"""

import gc
import threading

import comfy.model_management
import comfy_extras.nodes_differential_diffusion as differential
import comfy_extras.nodes_easycache as easycache
import comfy_extras.nodes_freelunch as freelunch
import comfy_extras.nodes_hooks as hooks
import comfy_extras.nodes_hypertile as hypertile
import comfy_extras.nodes_mahiro as mahiro
import comfy_extras.nodes_model_advanced as advanced
import comfy_extras.nodes_model_downscale as downscale
import comfy_extras.nodes_pag as pag
import comfy_extras.nodes_sag as sag
import comfy_extras.nodes_tomesd as tomesd
import pytest
import torch
import zoo_arms
from comfy.model_management import InterruptProcessingException
from modular_safety_lora.host.prompts import encode_texts
from modular_safety_lora.lab import zoo
from modular_safety_lora.modules.errors import SafetyError

import nodes


def sampled(held, changed) -> None:
    """With what a node made of the merged model, and without it again."""
    assert held.picture(changed).isfinite().all()


def node(kind, *values, **named):
    return lambda held: sampled(held, kind.execute(held.model, *values, **named)[0])


def patched(kind, *values, method: str = "patch"):
    return lambda held: sampled(held, getattr(kind(), method)(held.model, *values)[0])


def on_clone(method: str, *values):
    """What a node of a pack puts on a clone."""

    def run(held):
        changed = held.model.clone()
        getattr(changed, method)(*values)
        sampled(held, changed)

    return run


def another_model(held):
    model = zoo.build("Flux")
    zoo.sampled(model, "Flux")
    held.picture()
    zoo.sampled(model, "Flux")


def unloaded(held):
    held.picture()
    comfy.model_management.unload_all_models()
    gc.collect()


def in_memory_of(share: float):
    def run(held):
        with zoo_arms.memory(share):
            held.picture()
            held.picture(held.model.clone())

    return run


def partly_unloaded(held):
    """As the host does where another model needs the memory."""
    held.picture()
    held.model.partially_unload(torch.device("cpu"), held.model.model_size() // 2)
    held.picture()


def clones(held):
    first = held.model.clone()
    held.picture(first)
    held.picture(first.clone())


def the_base(held):
    held.picture(held.base)
    held.picture()
    held.picture(held.base.clone())


def texts_again(held):
    encode_texts(held.clip, ["nude", "a prompt that was not asked before"])


def skipped(held):
    clip = nodes.CLIPSetLastLayer().set_last_layer(held.clip, -2)[0]
    texts = encode_texts(clip, ["nude"])
    assert not torch.equal(texts["nude"][0][0], held.texts["nude"][0][0])
    texts_again(held)


def hooked(held):
    """A hook LoRA at strength 0."""
    key = next(iter(held.model.patches))
    made = hooks.comfy.hooks.create_hook_lora({}, 0.0, 0.0)
    before = held.texts
    held.texts = dict(before)
    held.texts["nude"] = hooks.SetModelHooksOnCond().attach_hook(before["nude"], made)[0]
    try:
        held.picture()
    finally:
        held.texts = before
    assert key in held.model.patches


def interrupted(held):
    def stop(*_):
        raise InterruptProcessingException

    with pytest.raises(InterruptProcessingException):
        held.picture(callback=stop)


def in_threads(held):
    """What counts is no alarm: who ends first takes the host's patcher from the others."""
    alarms, started = [], threading.Barrier(3)

    def work():
        started.wait()
        try:
            held.picture()
        except SafetyError as error:
            alarms.append(error)
        except AttributeError as error:
            assert "prepare_state" in str(error)

    held.picture()
    threads = [threading.Thread(target=work) for _ in range(3)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert not alarms


def attention_patch(held):
    """As IP-Adapter does: another attention beside the text's."""

    def beside(out, extra):
        return out + 0.3 * out.roll(1, dims=1)

    changed = held.model.clone()
    changed.set_model_attn2_output_patch(beside)
    sampled(held, changed)


def attention_replaced(held):
    def replaced(q, k, v, extra):
        return torch.nn.functional.scaled_dot_product_attention(q, k, v) * 0.5

    changed = held.model.clone()
    changed.set_model_attn2_replace(replaced, "input", 1)
    sampled(held, changed)


def ours_for_all_attention(held):
    def override(func, *args, **kwargs):
        return func(*args, **kwargs) * 0.9

    changed = held.model.clone()
    changed.model_options["transformer_options"]["optimized_attention_override"] = override
    sampled(held, changed)


def without_inference_mode(held):
    with torch.inference_mode():
        held.picture()
        comfy.model_management.unload_all_models()
        held.picture()


def cast_to(name: str):
    return lambda held: sampled(held, advanced.ModelComputeDtype().patch(held.model, name)[0])


def smooth(apply, args):
    return apply(args["input"], args["timestep"], **args["c"])


SEQUENCES = {
    "sampled again": lambda held: held.picture(),
    "the base between": the_base,
    "another family between": another_model,
    "unloaded": unloaded,
    "streaming": in_memory_of(0.0),
    "half in memory": in_memory_of(0.5),
    "a tenth in memory": in_memory_of(0.1),
    "partly unloaded": partly_unloaded,
    "clones": clones,
    "texts encoded again": texts_again,
    "CLIP skip": skipped,
    "a hook LoRA at 0": hooked,
    "a LoRA at 0": lambda held: sampled(held, zoo_arms.with_lora(held.model, held.tensors, 0.0)),
    "interrupted": interrupted,
    "threads at once": in_threads,
    "in inference mode": without_inference_mode,
    "wide pictures": lambda held: held.picture(shape=(1, 4, 4, 8)),
    "three pictures at once": lambda held: held.picture(shape=(3, 4, 4, 4)),
    "part of the noise": lambda held: held.picture(denoise=0.5),
    "fp16": cast_to("fp16"),
    "bf16": cast_to("bf16"),
    "ModelSamplingSD3": patched(advanced.ModelSamplingSD3, 3.0),
    "ModelSamplingDiscrete, v": patched(advanced.ModelSamplingDiscrete, "v_prediction", False),
    "ModelSamplingDiscrete, zero SNR": patched(advanced.ModelSamplingDiscrete, "eps", True),
    "ModelSamplingDiscrete, lcm": patched(advanced.ModelSamplingDiscrete, "lcm", False),
    "ModelSamplingContinuousEDM": patched(
        advanced.ModelSamplingContinuousEDM, "edm_playground_v2.5", 80.0, 0.002
    ),
    "RescaleCFG": patched(advanced.RescaleCFG, 0.7),
    "FreeU": node(freelunch.FreeU, 1.1, 1.2, 0.9, 0.2),
    "FreeU_V2": node(freelunch.FreeU_V2, 1.1, 1.2, 0.9, 0.2),
    "HyperTile": node(hypertile.HyperTile, 32, 2, 0, False),
    "TomePatchModel": node(tomesd.TomePatchModel, 0.3),
    "PerturbedAttentionGuidance": node(pag.PerturbedAttentionGuidance, 3.0),
    "SelfAttentionGuidance": node(sag.SelfAttentionGuidance, 0.5, 2.0),
    "PatchModelAddDownscale": node(
        downscale.PatchModelAddDownscale, 1, 2.0, 0.0, 0.4, True, "bicubic", "bicubic"
    ),
    "DifferentialDiffusion": node(differential.DifferentialDiffusion),
    "EasyCache": node(easycache.EasyCacheNode, 0.2, 0.15, 0.95, False),
    "LazyCache": node(easycache.LazyCacheNode, 0.2, 0.15, 0.95, False),
    "Mahiro": node(mahiro.Mahiro),
    "an attention patch": attention_patch,
    "an attention in another's place": attention_replaced,
    "an override of all attention": ours_for_all_attention,
    "a function around the network": on_clone("set_model_unet_function_wrapper", smooth),
    "a guidance function": on_clone(
        "set_model_sampler_cfg_function", lambda args: args["uncond"] + 3.0 * args["cond"]
    ),
    "after the guidance": on_clone(
        "set_model_sampler_post_cfg_function", lambda args: 0.9 * args["denoised"]
    ),
}
