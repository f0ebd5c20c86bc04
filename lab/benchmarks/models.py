"""The models and modules of the benchmarks, seeded: of real shapes, and the small checkpoint."""

from pathlib import Path

import comfy.ops
import comfy.sd
import comfy.supported_models
import torch
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel

from ...host.comfyui import load_checkpoint
from ...merge.entries import Task
from ...modules.files import load_safety, load_task, save_module
from ...training.adapter_settings import AdapterSettings
from ...training.engine.job import TrainingJob
from ...training.settings import Settings
from ...training.task import train_task
from .. import assets
from ..assets import UNET, lora

SD15 = {
    **UNET,
    "channel_mult": [1, 2, 4, 4],
    "num_res_blocks": [2, 2, 2, 2],
    "transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0],
    "transformer_depth_output": [1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0],
}
SDXL = {
    **SD15,
    "channel_mult": [1, 2, 4],
    "num_res_blocks": [2, 2, 2],
    "transformer_depth": [0, 0, 2, 2, 10, 10],
    "transformer_depth_output": [0, 0, 0, 2, 2, 2, 10, 10, 10],
    "transformer_depth_middle": 10,
    "use_linear_in_transformer": True,
    "context_dim": 2048,
    "num_heads": -1,
    "num_head_channels": 64,
    "num_classes": "sequential",
    "adm_in_channels": 2816,
}
SIZES = {"sd15": SD15, "sdxl": SDXL}
RANK = 16


def small():
    """(MODEL, CLIP) of the small checkpoint, and the folder of its modules."""
    models = assets.shared_models()
    return *load_checkpoint(models / "checkpoints" / assets.CHECKPOINT)[:2], models / "loras"


def build(size: str):
    """A stock MODEL of seeded fp16 weights: slices of one random block, scaled as if trained."""
    with torch.device("meta"):
        network = UNetModel(**SIZES[size], operations=comfy.ops.disable_weight_init)
    block = torch.randn(1 << 26, generator=torch.Generator().manual_seed(1)).half()
    weights, at = {}, 0
    for name, value in network.state_dict().items():
        if at + value.numel() > len(block):
            at = 0
        weights[name] = (block[at : at + value.numel()].reshape(value.shape) * 0.03).clone()
        at += 997
    model = comfy.sd.load_diffusion_model_state_dict(
        weights, model_options={"dtype": torch.float16}
    )
    if model is None:
        raise RuntimeError("ComfyUI did not recognise the weights")
    return model


def text_encoder(size: str):
    """A CLIP of the real architecture with seeded weights."""
    family = {"sd15": comfy.supported_models.SD15, "sdxl": comfy.supported_models.SDXL}[size]
    clip = comfy.sd.CLIP(family({}).clip_target())
    generator = torch.Generator().manual_seed(1)
    for value in clip.cond_stage_model.parameters():
        value.data = (torch.randn(value.shape, generator=generator) * 0.02).to(value.dtype)
    return clip


def linear_layers(model, part: str) -> dict:
    """The shapes of the linear layers whose name holds a part."""
    return {
        key.removeprefix("diffusion_model.").removesuffix(".weight"): value.shape
        for key, value in model.model.state_dict().items()
        if part in key and value.ndim == 2
    }


def write_loras(model, folder: Path, count: int) -> None:
    """One sealed safety module on the cross-attention and `count` task modules, by seed."""

    def write(name: str, *given) -> None:
        if not (folder / name).exists():
            save_module(folder / name, *given)

    safety = lora(linear_layers(model, "attn2"), 1, rank=8, size=0.05)
    write("safety.safetensors", safety, {"msl.base": "x"}, "safety")
    for number in range(count):
        shapes = linear_layers(model, "transformer_blocks")
        task = lora(shapes, 2 + number, rank=RANK, size=0.05)
        write(f"task-{number}.safetensors", task, {}, "task")


def load_loras(folder: Path, count: int, safety: str = "safety"):
    """The safety module, and `count` Tasks, from the files of `write_loras`."""
    files = ((f"{number}", folder / f"task-{number}.safetensors") for number in range(count))
    tasks = [Task(load_task(file, name)) for name, file in files]
    return load_safety(folder / f"{safety}.safetensors", safety), tasks


def trained(model, dataset, output: Path, steps: int, *, rank: int = 8, texts=None, **told):
    """Train a task LoRA; `told` are its settings, and the `safety` and `concepts` beside it."""
    held = {name: told.pop(name) for name in ("safety", "concepts") if name in told}
    settings = Settings(steps=steps, adapter=AdapterSettings(rank, float(rank)), **told)
    return train_task(model, dataset, texts or {}, settings, TrainingJob(output), **held)
