"""Seeded models of the real shapes: a checkpoint, a sealed safety module, task modules.

The checkpoint is SD1.5-shaped: of 340 MB, or of 300 for the tests, whose UNet has one level.
"""

import hashlib
import shutil
from pathlib import Path

import torch
from filelock import FileLock
from safetensors.torch import save_file

from ..function.inputs import Moments
from ..host.comfyui import enter_comfyui
from ..modules.files import save_module

CHECKPOINT = "small-sd15.safetensors"
SAFETY = "safety-demo.safetensors"
SAFE = "safe-demo.safetensors"  # weights of a safe model, as ESD and UCE publish them
STYLE = "task-style.safetensors"
SUBJECT = "task-subject.safetensors"
SHIPPED = {  # the names that the shipped workflows have, and what stands in for those files here
    "checkpoints/v1-5-pruned-emaonly-fp16.safetensors": f"checkpoints/{CHECKPOINT}",
    "diffusion_models/my-safe-model.safetensors": f"diffusion_models/{SAFE}",
    "loras/my-safety-lora.safetensors": f"loras/{SAFETY}",
    "loras/my-style.safetensors": f"loras/{STYLE}",
    "loras/my-subject.safetensors": f"loras/{SUBJECT}",
}
UNET = {
    "image_size": 32,
    "in_channels": 4,
    "out_channels": 4,
    "model_channels": 320,
    "channel_mult": [1, 1],
    "num_res_blocks": [1, 1],
    "transformer_depth": [1, 1],
    "transformer_depth_output": [1, 1, 1, 1],
    "transformer_depth_middle": 1,
    "use_spatial_transformer": True,
    "use_linear_in_transformer": False,
    "context_dim": 768,
    "num_heads": 8,
    "num_head_channels": -1,
}
ONE_LEVEL = UNET | {  # nearly half the work
    "channel_mult": [1],
    "num_res_blocks": [1],
    "transformer_depth": [1],
    "transformer_depth_output": [1, 1],
}


def seeded(shapes: dict[str, torch.Size], seed: int) -> dict[str, torch.Tensor]:
    """Random fp16 weights: layers keep the size of what they are given, norms are the identity."""
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for name, shape in shapes.items():
        if len(shape) > 1:
            fan_in = shape[1:].numel()
            weight = torch.randn(shape, generator=generator) * (
                0.02 if "embedding" in name else fan_in**-0.5
            )
        else:
            weight = torch.ones(shape) if name.endswith("weight") else torch.zeros(shape)
        weights[name] = weight.half()
    return weights


def checkpoint_weights(shape: dict, seed: int = 1) -> dict[str, torch.Tensor]:
    """A UNet of that shape, SD1.5's whole CLIP-L, and TAESD in the VAE's place."""
    import comfy.ops
    from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
    from comfy.taesd.taesd import TAESD
    from transformers import CLIPTextConfig, CLIPTextModel

    with torch.device("meta"):
        unet = UNetModel(**shape, operations=comfy.ops.disable_weight_init).state_dict()
        text = CLIPTextModel(
            CLIPTextConfig(
                hidden_size=768,
                num_hidden_layers=12,
                num_attention_heads=12,
                intermediate_size=3072,
            )
        ).state_dict()
    vae = TAESD(latent_channels=4).state_dict()
    shapes = {f"model.diffusion_model.{name}": value.shape for name, value in unet.items()}
    shapes |= {
        f"cond_stage_model.transformer.text_model.{name.removeprefix('text_model.')}": value.shape
        for name, value in text.items()
    }
    shapes |= {
        f"first_stage_model.{name}": value.shape for name, value in vae.items() if value.ndim
    }
    weights = seeded(
        {name: shape for name, shape in shapes.items() if "position_ids" not in name}, seed
    )
    weights |= {f"first_stage_model.{name}": value for name, value in vae.items() if not value.ndim}
    last = max(
        (name for name in weights if "taesd_decoder" in name),
        key=lambda name: int(name.split(".")[2]),
    )
    # soft colours around grey, not a saturated picture
    weights[last.replace(".bias", ".weight")] *= 0.1
    weights[last.replace(".weight", ".bias")] += 0.5
    return weights


def layers(weights: dict[str, torch.Tensor], *parts: str) -> dict[str, torch.Size]:
    """The UNet's linear and convolution layers whose name in ComfyUI holds one of `parts`."""
    prefix = "model.diffusion_model."
    return {
        name.removeprefix(prefix).removesuffix(".weight"): weight.shape
        for name, weight in weights.items()
        if name.startswith(prefix) and weight.ndim > 1 and any(part in name for part in parts)
    }


def lora(
    shapes: dict[str, torch.Size], seed: int, rank: int = 4, size: float = 0.3
) -> dict[str, torch.Tensor]:
    """A plain LoRA under PEFT's names: `diffusion_model.<layer>.lora_A/lora_B.weight`."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, shape in shapes.items():
        fan_in = shape[1:].numel()
        down = torch.randn(rank, fan_in, generator=generator) * fan_in**-0.5
        up = torch.randn(shape[0], rank, generator=generator) * size * rank**-0.5
        tensors[f"diffusion_model.{name}.lora_A.weight"] = down.reshape(rank, *shape[1:]).half()
        tensors[f"diffusion_model.{name}.lora_B.weight"] = up.reshape(
            shape[0], rank, *[1] * (len(shape) - 2)
        ).half()
    return tensors


def loha(
    shapes: dict[str, torch.Size], seed: int, rank: int = 4, size: float = 0.3
) -> dict[str, torch.Tensor]:
    """A LyCORIS LoHa under kohya's names: (w1_a w1_b) * (w2_a w2_b)."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, shape in shapes.items():
        stem, fan_in = f"lora_unet_{name.replace('.', '_')}", shape[1:].numel()
        for half, scale in (("w1", size), ("w2", fan_in**-0.5)):
            tensors[f"{stem}.hada_{half}_a"] = (
                torch.randn(shape[0], rank, generator=generator) * scale / rank**0.5
            ).half()
            tensors[f"{stem}.hada_{half}_b"] = torch.randn(rank, fan_in, generator=generator).half()
        tensors[f"{stem}.alpha"] = torch.tensor(float(rank))
    return tensors


def text_lora(seed: int, rank: int = 4, blocks: int = 12) -> dict[str, torch.Tensor]:
    """The text-encoder half of a kohya LoRA for CLIP-L: the query and value projections."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for block in range(blocks):
        for layer in ("q_proj", "v_proj"):
            stem = f"lora_te_text_model_encoder_layers_{block}_self_attn_{layer}"
            tensors[f"{stem}.lora_down.weight"] = (
                torch.randn(rank, 768, generator=generator) * 768**-0.5
            ).half()
            tensors[f"{stem}.lora_up.weight"] = (
                torch.randn(768, rank, generator=generator) * 0.1
            ).half()
            tensors[f"{stem}.alpha"] = torch.tensor(float(rank))
    return tensors


def models_folder(shape: dict) -> Path:
    """Where seeded models are kept; named after this file and the shape: a change makes others."""
    version = hashlib.sha256(Path(__file__).read_bytes() + repr(shape).encode()).hexdigest()[:8]
    return Path(__file__).resolve().parents[1] / ".host" / f"models-{version}"


def shared_models(shape: dict = UNET) -> Path:
    """The folder of the seeded models, made on first use, by one process of those that ask.

    Benchmarks and what is generated share one; the tests have that of one level.
    """
    folder = models_folder(shape)
    folder.parent.mkdir(exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            print("Making a small seeded checkpoint and its modules ...", flush=True)
            enter_comfyui()
            make_models(folder, shape)
    return folder


def make_models(models: Path, shape: dict) -> None:
    """Write the checkpoint and the modules as a ComfyUI models folder, whole or not at all."""
    unfinished = models.with_suffix(".part")
    shutil.rmtree(unfinished, ignore_errors=True)
    loras = unfinished / "loras"
    for name in ("loras", "checkpoints", "diffusion_models"):
        (unfinished / name).mkdir(parents=True)
    weights = checkpoint_weights(shape)
    base = {"msl.base": "SD15"}
    concept = {"msl.concept": "a seeded stand-in, trained on nothing", "msl.strength": "1.0"}
    concept |= {"msl.moments": Moments(resolution=64).text(), "msl.method": "imported"}
    save_module(loras / SAFETY, lora(layers(weights, "attn2.to_"), 11), base | concept, "safety")
    style = lora(layers(weights, "attn1.to_", "attn2.to_", "ff.net"), 12) | text_lora(13)
    save_module(loras / STYLE, style, base, "task")
    save_module(loras / SUBJECT, loha(layers(weights, "attn1.to_"), 14), base, "task")
    save_file(weights, unfinished / "checkpoints" / CHECKPOINT)
    safe = {}
    for name in layers(weights, "attn2.to_"):
        weight = weights[f"model.diffusion_model.{name}.weight"]
        safe[f"{name}.weight"] = weight + 3 * torch.outer(weight[:, 0], weight[0])
    save_file(safe, unfinished / "diffusion_models" / SAFE)
    unfinished.rename(models)


def link(file: Path, target: Path) -> None:
    """Give a file another name: a link (a hard one would change the file's times), or a copy."""
    try:
        target.symlink_to(file.resolve())
    except OSError:
        shutil.copy(file, target)


def training_pictures(folder: Path, count: int = 6) -> None:
    """Write seeded pictures of balls on stripes in two sizes, each with a caption beside it."""
    import numpy as np
    from PIL import Image, ImageDraw

    folder.mkdir(parents=True)
    rng = np.random.default_rng(1)
    for number in range(count):
        size = (96, 64) if number % 2 else (64, 64)
        stripes = np.zeros((size[1], size[0], 3), dtype=np.uint8)
        stripes[:, (np.arange(size[0]) // 8) % 2 == 0] = rng.integers(120, 250, 3)
        picture = Image.fromarray(stripes)
        x, y, radius = rng.integers(16, 48), rng.integers(16, 48), rng.integers(8, 16)
        colour = tuple(int(value) for value in rng.integers(0, 256, 3))
        ImageDraw.Draw(picture).ellipse(
            (x - radius, y - radius, x + radius, y + radius), fill=colour
        )
        picture.save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text("a ball on stripes", encoding="utf-8")


def astronaut(path: Path) -> None:
    """Write scikit-image's photograph of an astronaut, with a face that NudeNet finds, as a PNG."""
    from PIL import Image
    from skimage.data import astronaut as photograph

    Image.fromarray(photograph()).save(path)
