"""The roles of layers by their names, read off the host's sources: what the tracing must find."""

from ...host.structure import CROSS, FUSED, JOINT, MLP, SELF

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
CASCADE = {
    CROSS: r"(up|down)_blocks\.\d+\.\d+\.attention\..*",
    MLP: r"(up|down)_blocks\.\d+\.\d+\.kv_mapper\..*",
}
HUNYUAN_VIDEO = STREAMS | {
    SELF: rf"{REFINER}\.self_attn\..*",
    MLP: rf"{REFINER}\.mlp\..*|{STREAMS[MLP]}",
}
QWEN = {
    JOINT: r"transformer_blocks\.\d+\.attn\..*",
    MLP: r"transformer_blocks\.\d+\.(img|txt)_mlp\..*",
}
HIDREAM = {
    JOINT: r"(double|single)_stream_blocks\.\d+\.block\.attn1\..*",
    MLP: r"(double|single)_stream_blocks\.\d+\.block\.ff_[it]\..*",
}
AURA_FLOW = {
    JOINT: r"(double|single)_layers\.\d+\.attn\..*",
    MLP: r"(double|single)_layers\.\d+\.mlp[CX]?\..*",
}
PIXART = WAN | {SELF: r"blocks\.\d+\.attn\..*", MLP: r"blocks\.\d+\.mlp\..*"}
HUNYUAN_DIT = {
    SELF: r"blocks\.\d+\.attn1\..*|pooler\..*",
    CROSS: r"blocks\.\d+\.attn2\..*",
    MLP: r"blocks\.\d+\.(mlp\..*|skip_linear)",
}
OMNIGEN = {
    SELF: r"(noise|context)_refiner\.\d+\.attn\..*",
    JOINT: r"layers\.\d+\.attn\..*",
    MLP: r"(noise_refiner|context_refiner|layers)\.\d+\.feed_forward\..*",
}
KREA = {
    SELF: r"txtfusion\.\w+_blocks\.\d+\.attn\..*",
    JOINT: r"blocks\.\d+\.attn\..*",
    MLP: r"(txtfusion\.\w+_)?blocks\.\d+\.mlp\..*",
}
