"""Safe models as they are published: small ones, in the layouts of those who write them."""

from collections.abc import Callable, Mapping
from pathlib import Path

import comfy.utils
import diffusers
import torch
from comfy.model_patcher import ModelPatcher
from modular_safety_lora.function.inputs import Moments
from modular_safety_lora.host.weights import loaded_weight
from modular_safety_lora.lab import zoo
from safetensors.torch import save_file

SMALL = Moments((0.9,), (1,), 64)  # one level, and the smallest picture
Weights = dict[str, torch.Tensor]
NETWORK = "diffusion_model."
UNET = diffusers.UNet2DConditionModel
UNET_SIZES = {
    "block_out_channels": (32, 32),
    "layers_per_block": 1,
    "down_block_types": ("CrossAttnDownBlock2D",) * 2,
    "up_block_types": ("CrossAttnUpBlock2D",) * 2,
    "cross_attention_dim": 768,
    "attention_head_dim": 8,
}


def base(key: str = "SD15", held: torch.dtype = torch.float32) -> ModelPatcher:
    return zoo.build(key, held, sizes=zoo.AS_CHECKPOINT[key])


def weights_of(patcher: ModelPatcher) -> Weights:
    """Its network's weights in float32, by ComfyUI's names."""
    keys = [key for key in patcher.model.state_dict() if key.startswith(NETWORK)]
    return {key: loaded_weight(patcher, key) for key in keys}


def tuned(weights: Weights, which: Callable[[str], bool], size: float = 0.3, seed: int = 1):
    """All weights, and those that are meant moved by `size` of their own, in every direction."""
    generator = torch.Generator().manual_seed(seed)
    moved = {}
    for key, value in weights.items():
        noise = torch.randn(value.shape, generator=generator)
        if value.ndim > 1:  # most of it in a few directions, as training leaves it
            left = torch.linalg.svd(noise.flatten(1), full_matrices=False)
            sizes = torch.arange(1, len(left.S) + 1).float().reciprocal()
            noise = ((left.U * sizes) @ left.Vh).reshape(value.shape)
        scale = size * max(value.norm().item(), 1.0) / noise.norm()
        moved[key] = value + scale * noise if which(key) else value.clone()
    return moved


def cross(key: str) -> bool:
    """What ESD-x trains."""
    return "attn2" in key and not key.endswith("norm2.weight")


def unet_names(patcher: ModelPatcher) -> dict[str, str]:
    """diffusers' names by ComfyUI's keys."""
    table = comfy.utils.unet_to_diffusers(patcher.model.model_config.unet_config)
    own = patcher.model.state_dict()
    return {NETWORK + ours: name for name, ours in table.items() if NETWORK + ours in own}


def in_diffusers(patcher: ModelPatcher, safe: Weights) -> Weights:
    """The weights of a UNet as diffusers' own model of its size has them."""
    network = UNET(**UNET_SIZES)
    names = unet_names(patcher)
    network.load_state_dict({names[key]: value for key, value in safe.items()}, strict=True)
    return {name: value.clone() for name, value in network.state_dict().items()}


def transformer(table: Mapping, safe: Weights) -> Weights:
    """The weights of a transformer under diffusers' names, by ComfyUI's table of them."""
    found, used = {}, set()
    for theirs, target in table.items():
        ours, rows, reorder = (*((target,) if isinstance(target, str) else target), None, None)[:3]
        if NETWORK + ours in safe:
            value = safe[NETWORK + ours]
            value = value if rows is None else value.narrow(*rows)
            found[theirs] = (reorder(value) if reorder else value).clone()
            used.add(NETWORK + ours)
    rest = {key.removeprefix(NETWORK): value for key, value in safe.items() if key not in used}
    return found | rest


def checkpoint(safe: Weights) -> Weights:
    return {f"model.{key}": value for key, value in safe.items()}


# how each is published; all but SPM's and MACE's LoRAs are of the same safe model
def as_checkpoint(folder: Path, patcher: ModelPatcher, safe: Weights, changed: set[str]) -> Path:
    save_file(checkpoint(safe), folder / "safe.safetensors")
    return folder / "safe.safetensors"


def as_ckpt(folder: Path, patcher: ModelPatcher, safe: Weights, changed: set[str]) -> Path:
    """CompVis' layout, with what training leaves beside the weights."""
    about = {"epoch": 1, "global_step": 2, "state_dict": checkpoint(safe)}
    torch.save(about, folder / "safe.ckpt")
    return folder / "safe.ckpt"


def as_folder(folder: Path, patcher: ModelPatcher, safe: Weights, changed: set[str]) -> Path:
    """MACE's fused models and any other of diffusers: a pipeline's folder, by diffusers itself."""
    network = UNET(**UNET_SIZES)
    network.load_state_dict(in_diffusers(patcher, safe))
    network.save_pretrained(folder / "safe" / "unet")
    (folder / "safe" / "model_index.json").write_text("{}")
    return folder / "safe"


def as_shards(folder: Path, patcher: ModelPatcher, safe: Weights, changed: set[str]) -> Path:
    network = UNET(**UNET_SIZES)
    network.load_state_dict(in_diffusers(patcher, safe))
    network.save_pretrained(folder / "unet", max_shard_size="500KB")
    return folder / "unet"


def as_whole_unet(folder: Path, patcher: ModelPatcher, safe: Weights, changed: set[str]) -> Path:
    """ESD's `diffusers-nudity-ESDu1-UNET.pt` and UCE's first files: a UNet's whole state dict."""
    torch.save(in_diffusers(patcher, safe), folder / "diffusers-nudity-ESDx1-UNET.pt")
    return folder / "diffusers-nudity-ESDx1-UNET.pt"


def as_layers(folder: Path, patcher: ModelPatcher, safe: Weights, changed: set[str]) -> Path:
    """esd_diffusers.py: the state dict of each trained layer, by the layer's name."""
    layers: dict[str, Weights] = {}
    names = unet_names(patcher)
    for key in changed:
        layer, _, end = names[key].rpartition(".")
        layers.setdefault(f"unet.{layer}", {})[end] = safe[key]
    torch.save(layers, folder / "esd-nudity-xattn_1-epochs_200.pt")
    return folder / "esd-nudity-xattn_1-epochs_200.pt"


def as_trained(folder: Path, patcher: ModelPatcher, safe: Weights, changed: set[str]) -> Path:
    """esd_sd.py and uce_sd_erase.py: the trained tensors alone, under diffusers' names."""
    names = unet_names(patcher)
    save_file({names[key]: safe[key] for key in changed}, folder / "esd-esdx.safetensors")
    return folder / "esd-esdx.safetensors"


LAYOUTS = {
    "a checkpoint": as_checkpoint,
    "CompVis' .ckpt": as_ckpt,
    "a pipeline's folder": as_folder,
    "a folder in several files": as_shards,
    "ESD's whole UNet": as_whole_unet,
    "ESD's layers": as_layers,
    "ESD's and UCE's tensors": as_trained,
}


def low_rank(patcher: ModelPatcher, rank: int = 1, seed: int = 3) -> dict[str, tuple]:
    """(up, down) of the keys and values of cross-attention, by diffusers' layer."""
    generator = torch.Generator().manual_seed(seed)
    found = {}
    for key, name in unet_names(patcher).items():
        if name.endswith(("attn2.to_k.weight", "attn2.to_v.weight")):
            out, width = patcher.model.state_dict()[key].shape
            pair = (
                torch.randn(out, rank, generator=generator),
                torch.randn(rank, width, generator=generator),
            )
            found[name.removesuffix(".weight")] = pair[0] * 0.05, pair[1]
    return found


def as_spm(folder: Path, pairs: Mapping[str, tuple]) -> Path:
    """SPMNetwork.save_weights: kohya's names with an alpha of 1."""
    tensors = {}
    for layer, (up, down) in pairs.items():
        name = f"lora_unet_{layer.replace('.', '_')}"
        tensors |= {f"{name}.lora_up.weight": up, f"{name}.lora_down.weight": down}
        tensors[f"{name}.alpha"] = torch.tensor(1.0)
    save_file(tensors, folder / "nudity_last.safetensors")
    return folder / "nudity_last.safetensors"


def as_mace(folder: Path, pairs: Mapping[str, tuple]) -> Path:
    """UNet2DConditionModel.save_attn_procs of diffusers 0.22, which MACE pins."""
    tensors = {}
    for layer, (up, down) in pairs.items():
        attention, _, part = layer.rpartition(".")
        name = f"{attention}.processor.{part}_lora"
        tensors |= {f"{name}.up.weight": up, f"{name}.down.weight": down}
        unused = name.replace("attn2", "attn1")  # which it makes too, and does not train
        zero = {f"{unused}.up.weight": torch.zeros(32, 1)}
        tensors |= zero | {f"{unused}.down.weight": torch.ones(1, 32)}
    (folder / "nudity").mkdir()
    torch.save(tensors, folder / "nudity" / "pytorch_lora_weights.bin")
    return folder / "nudity"
