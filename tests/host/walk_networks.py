"""Seeded, small networks for the walk: ControlNets, CLIP vision, GLIGEN, styles, model patches."""

import functools
import sys
from collections.abc import Callable

import comfy.cldm.cldm
import comfy.clip_vision
import comfy.gligen
import comfy.ldm.anima.lllite as lite
import comfy.ldm.wan.uni3c
import comfy.ops
import comfy.sd
import comfy.t2i_adapter.adapter
import torch
from comfy.model_patcher import ModelPatcher
from modular_safety_lora.lab import assets

CPU, PLAIN = torch.device("cpu"), comfy.ops.disable_weight_init
VISION = {
    "hidden_size": 64,
    "image_size": 224,
    "intermediate_size": 64,
    "num_attention_heads": 4,
    "num_channels": 3,
    "num_hidden_layers": 2,
    "patch_size": 56,
    "projection_dim": 768,
    "hidden_act": "quick_gelu",
    "model_type": "clip_vision_model",
}


def rand(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(1))


def seeded(network: torch.nn.Module) -> torch.nn.Module:
    """The network with random weights: the host leaves uninitialised what no file gives."""
    generator = torch.Generator().manual_seed(1)
    for value in network.requires_grad_(False).eval().parameters():
        value.copy_(
            torch.randn(value.shape, generator=generator)
            * 0.5
            * max(value.shape[1:].numel(), 1) ** -0.5
        )
    return network


def patcher(network: torch.nn.Module) -> ModelPatcher:
    return ModelPatcher(seeded(network), load_device=CPU, offload_device=CPU)


@functools.cache
def control_network() -> torch.nn.Module:
    """A ControlNet of the checkpoint's shape."""
    shape = {
        key: value
        for key, value in assets.ONE_LEVEL.items()
        if key not in ("out_channels", "transformer_depth_output")
    }
    return seeded(comfy.cldm.cldm.ControlNet(**shape, hint_channels=3, operations=PLAIN))


def gligen() -> comfy.gligen.Gligen:
    """GLIGEN for the transformers of the checkpoint, all of 320 channels."""
    count = (
        sum(assets.ONE_LEVEL["transformer_depth"])
        + sum(assets.ONE_LEVEL["transformer_depth_output"])
        + 1
    )
    blocks = [comfy.gligen.GatedSelfAttentionDense(320, 768, 8, 40) for _ in range(count)]
    return comfy.gligen.Gligen(blocks, comfy.gligen.PositionNet(768, 768), 768)


def style() -> comfy.sd.StyleModel:
    return comfy.sd.StyleModel(
        seeded(
            comfy.t2i_adapter.adapter.StyleAdapter(
                width=64, context_dim=768, num_head=4, n_layes=1, num_token=2
            )
        )
    )


def vision() -> comfy.clip_vision.ClipVisionModel:
    made = comfy.clip_vision.ClipVisionModel(VISION)
    seeded(made.model)
    return made


def seen_picture() -> comfy.clip_vision.Output:
    """What a CLIP vision model makes of a picture: 17 tokens of 64, 25 layers."""
    output = comfy.clip_vision.Output()
    output.last_hidden_state = output.penultimate_hidden_states = rand(1, 17, 64)
    output.all_hidden_states, output.image_embeds, output.mm_projected = (
        rand(1, 25, 17, 64),
        rand(1, 768),
        rand(1, 17, 64),
    )
    return output


def lite_weights() -> dict[str, torch.Tensor]:
    """An Anima LLLite file with one module, on the queries of the first block."""
    parts = {
        "lllite_conditioning1": lite.AnimaLLLiteConditioning(3, 16, 16, 0, (), operations=PLAIN),
        "lllite_dit_blocks_0_self_attn_q_proj": lite.AnimaLLLiteModule(
            320, 16, 8, operations=PLAIN
        ),
    }
    return {
        f"{name}.{key}": value
        for name, part in parts.items()
        for key, value in seeded(part).state_dict().items()
    }


def hypernetwork() -> dict:
    """A hypernetwork for keys and values of the texts (768)."""
    weight = torch.randn(768, 768, generator=torch.Generator().manual_seed(1)) * 0.01
    half = {"linear.0.weight": weight, "linear.0.bias": torch.zeros(768)}
    return {768: [half, half]}


def model_patch(node: type | None = None) -> ModelPatcher:
    """A small MODEL_PATCH of the kind that a node is for; an Anima LLLite where none is named."""
    name = getattr(node, "__name__", "")
    module = sys.modules[node.__module__] if node else None
    made: dict[str, Callable] = {
        "QwenImageDiffsynthControlnet": lambda: module.QwenImageBlockWiseControlNet(
            1, dim=16, operations=PLAIN
        ),
        "ZImageFunControlnet": lambda: module.QwenImageBlockWiseControlNet(
            1, dim=16, operations=PLAIN
        ),
        "WanUni3CControlnetApply": lambda: comfy.ldm.wan.uni3c.WanUni3CControlnet(
            dim=16,
            ffn_dim=16,
            num_layers=1,
            conv_out_dim=16,
            time_embed_dim=16,
            out_proj_dim=16,
            operations=PLAIN,
        ),
        "WanInfiniteTalkToVideo": lambda: module.MultiTalkModelPatch(
            intermediate_dim=8,
            in_dim=16,
            out_dim=8,
            context_tokens=2,
            num_layers=1,
            operations=PLAIN,
        ),
    }
    return patcher(
        made.get(name, lambda: lite.AnimaLLLite(lite_weights(), {}, CPU, torch.float32, PLAIN))()
    )
