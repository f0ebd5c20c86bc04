"""What a training run leaves on the disk: the module, read back and compared, and a checkpoint."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import comfy.model_management
import torch
from comfy.model_patcher import ModelPatcher
from safetensors.torch import load_file

from ...host.bases import origin
from ...host.names import kohya_metadata, model_spec
from ...host.weights import base_name
from ...modules.files import LoraFile, load_safety, load_task, save_module
from ...options.words import amount
from ..settings import Settings
from .checkpoint import Progress
from .loop import TrainingError

ABOUT_SAFETY = ("safety_mode", "safety_sha256")
# In sizes of the adapters: a checkpoint, its successor and the module, with two optimizer moments
# each; and in memory weights, gradients and both moments.
ROOM, HELD = 10, 4
FLOAT32 = 4  # bytes


def check_room(folder: Path, count: int) -> None:
    """Raise before anything is made when disk or memory can't hold `count` trained weights.

    OSError for the disk, TrainingError for the memory.
    """
    size = FLOAT32 * count
    free = shutil.disk_usage(folder).free
    if free < ROOM * size:
        raise OSError(
            f"{folder}: {free / 2**20:.0f} MB are free, and this run may write"
            f" {ROOM * size / 2**20:.0f} MB (checkpoints and the LoRA). Make room, or choose"
            " another folder or a lower rank."
        )
    there = comfy.model_management.get_total_memory()
    if there < HELD * size:
        raise TrainingError(
            f"{amount(count, 'weight')} would be trained, which takes {HELD * size / 2**20:.0f} MB"
            " of memory with their gradients and the optimizer's state; there are"
            f" {there / 2**20:.0f} MB. Choose a lower rank or fewer targets."
        )


def write_module(
    output: Path,
    tensors: Mapping[str, torch.Tensor],
    metadata: Mapping[str, str],
    role: str,
    *,
    overwrite: bool,
) -> LoraFile:
    """Write a module, open it again and compare.

    Raises OSError when the disk does not hold what was written, and unless `overwrite` when a file
    came there meanwhile.
    """
    try:
        digest = save_module(output, tensors, metadata, role, overwrite)
    except FileExistsError as error:
        raise FileExistsError(
            f"{output} was written by something else during training, and is kept. The checkpoint"
            " has what was trained: move that file, and run again with resume."
        ) from error
    read = (load_safety if role == "safety" else load_task)(output, output.name)
    written = load_file(output)
    if read.sha256 != digest or not all(
        torch.equal(written[name], value.cpu()) for name, value in tensors.items()
    ):
        raise OSError(
            f"{output} does not contain what was written; the disk may be failing. The checkpoint"
            " beside it is kept."
        )
    return read


def metadata_of(
    model: ModelPatcher, settings: Settings, title: str, progress: Progress
) -> dict[str, str]:
    """What every trained module's file says: its base, and what the tools of the ecosystem read."""
    base, adapter = base_name(model), settings.adapter
    known = origin(model).sha256
    return {
        "msl.base": base,
        **({"msl.base_sha256": known} if known else {}),
        **model_spec(base, title),
        **kohya_metadata(
            adapter.rank, adapter.scale * adapter.rank, settings.learning_rate, progress.step, base
        ),
    }


def report_of(
    module: LoraFile, progress: Progress, settings: Settings, seconds: float
) -> dict[str, Any]:
    """What a run did, JSON-ready: module, steps, loss at start and end, what each preview found."""
    tenth = max(1, len(progress.losses) // 10)
    ends = {"first": progress.losses[:tenth], "last": progress.losses[-tenth:]}
    return {
        "name": module.name,
        "role": module.role,
        "sha256": module.sha256,
        "steps": progress.step,
        "of_steps": settings.steps,
        "cancelled": progress.cancelled,
        "loss": {end: _means(losses) for end, losses in ends.items()},
        "seconds": round(seconds, 1),
        "keys": len(module.tensors),
        "base": module.base,
        **{
            name: module.metadata[f"msl.{name}"]
            for name in ABOUT_SAFETY
            if f"msl.{name}" in module.metadata
        },
        "previews": progress.previews,
    }


def _means(losses: list[dict[str, float]]) -> dict[str, float]:
    """The mean of each part of the loss over some steps."""
    parts: dict[str, list[float]] = {}
    for step in losses:
        for name, value in step.items():
            parts.setdefault(name, []).append(value)
    return {name: sum(values) / len(values) for name, values in parts.items()}
