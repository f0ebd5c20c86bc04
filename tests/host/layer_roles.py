"""The roles of layers by their names, read off the host's sources: what the tracing must find."""

import re

from modular_safety_lora.host import structure
from modular_safety_lora.host.structure import CROSS, FUSED, JOINT, MLP, SELF
from modular_safety_lora.training import targets

UNET = {
    SELF: r".*transformer_blocks\.\d+\.attn1\..*",
    CROSS: r".*transformer_blocks\.\d+\.attn2\..*",
    MLP: r".*transformer_blocks\.\d+\.ff\..*",
}
MMDIT = {
    SELF: r"joint_blocks\.\d+\.x_block\.attn2\..*",
    JOINT: r"joint_blocks\.\d+\.(x|context)_block\.attn\..*",
    MLP: r"joint_blocks\.\d+\.(x|context)_block\.mlp\..*",
}
STREAMS = {
    JOINT: r"double_blocks\.\d+\.(img|txt)_attn\..*",
    FUSED: r"single_blocks\.\d+\.linear[12]",
    MLP: r"double_blocks\.\d+\.(img|txt)_mlp\..*",
}
REFINER = r"txt_in\.individual_token_refiner\.blocks\.\d+"
LUMINA = {
    SELF: r"(noise|context)_refiner\.\d+\.attention\..*",
    JOINT: r"layers\.\d+\.attention\..*",
    MLP: r"(noise_refiner|context_refiner|layers)\.\d+\.feed_forward\..*",
}
WAN = {
    SELF: r"blocks\.\d+\.self_attn\..*",
    CROSS: r"blocks\.\d+\.cross_attn\..*",
    MLP: r"blocks\.\d+\.ffn\..*",
}
KANDINSKY = {
    SELF: r"(text|visual)_transformer_blocks\.\d+\.self_attention\..*",
    CROSS: r"visual_transformer_blocks\.\d+\.cross_attention\..*",
    MLP: r"(text|visual)_transformer_blocks\.\d+\.feed_forward\..*",
}
COSMOS = WAN | {MLP: r"blocks\.\d+\.mlp\..*"}
# of each of the zoo's families: which layers attend, how, and which feed forward
FAMILIES = {
    "SD15": UNET,
    "SD20": UNET,
    "SDXL": UNET,
    "Stable_Cascade_C": {
        CROSS: r"(up|down)_blocks\.\d+\.\d+\.attention\..*",
        MLP: r"(up|down)_blocks\.\d+\.\d+\.kv_mapper\..*",
    },
    "SD3": MMDIT,
    "SD35": MMDIT,
    "Flux": STREAMS,
    "FluxSchnell": STREAMS,
    "Flux2": STREAMS,
    "Chroma": STREAMS,
    "HunyuanVideo": STREAMS
    | {SELF: rf"{REFINER}\.self_attn\..*", MLP: rf"{REFINER}\.mlp\..*|{STREAMS[MLP]}"},
    "QwenImage": {
        JOINT: r"transformer_blocks\.\d+\.attn\..*",
        MLP: r"transformer_blocks\.\d+\.(img|txt)_mlp\..*",
    },
    "HiDream": {
        JOINT: r"(double|single)_stream_blocks\.\d+\.block\.attn1\..*",
        MLP: r"(double|single)_stream_blocks\.\d+\.block\.ff_[it]\..*",
    },
    "AuraFlow": {
        JOINT: r"(double|single)_layers\.\d+\.attn\..*",
        MLP: r"(double|single)_layers\.\d+\.mlp[CX]?\..*",
    },
    "ZImage": LUMINA,
    "Lumina2": LUMINA,
    "PixArtSigma": WAN | {SELF: r"blocks\.\d+\.attn\..*", MLP: r"blocks\.\d+\.mlp\..*"},
    "HunyuanDiT": {
        SELF: r"blocks\.\d+\.attn1\..*|pooler\..*",
        CROSS: r"blocks\.\d+\.attn2\..*",
        MLP: r"blocks\.\d+\.(mlp\..*|skip_linear)",
    },
    "Omnigen2": {
        SELF: r"(noise|context)_refiner\.\d+\.attn\..*",
        JOINT: r"layers\.\d+\.attn\..*",
        MLP: r"(noise_refiner|context_refiner|layers)\.\d+\.feed_forward\..*",
    },
    "Krea2": {
        SELF: r"txtfusion\.\w+_blocks\.\d+\.attn\..*",
        JOINT: r"blocks\.\d+\.attn\..*",
        MLP: r"(txtfusion\.\w+_)?blocks\.\d+\.mlp\..*",
    },
    "WAN21_T2V": WAN,
    "WAN22_T2V": WAN,
    "LTXV": UNET,
    "Kandinsky5": KANDINSKY,
    "Kandinsky5Image": KANDINSKY,
    "CosmosT2IPredict2": COSMOS,
    "Anima": COSMOS,
}
ALIKE = {"FluxInpaint": "Flux", "WAN21_I2V": "WAN21_T2V"}  # with more inputs, the same layers
OUTER = r"^(time_embed|label_emb|out|[xyt]_embedder|context_embedder|final_layer)\b"


def expected(family: str, layers) -> dict[str, str]:
    """The role of each layer that attends or feeds forward, by its name alone."""
    return {
        layer: role
        for role, pattern in FAMILIES[ALIKE.get(family, family)].items()
        for layer in layers
        if re.fullmatch(pattern, layer)
    }


def named(network, family: str = "") -> dict[str, str]:
    """The role of each layer by its name alone; without a family, of a UNet or SD3.5."""
    layers = structure.layers_of(network)
    family = family or ("SD35" if hasattr(network, "joint_blocks") else "SD15")
    outer = {
        layer: structure.EMBEDDER if re.search(OUTER, layer) else structure.OTHER
        for layer in layers
    }
    return outer | expected(family, layers)


def chosen(network, choice: str = "attention", family: str = "") -> list[str]:
    """The layers that a choice of targets means."""
    return targets.target_layers(network, named(network, family), choice)
