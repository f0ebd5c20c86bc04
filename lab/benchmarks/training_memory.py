"""Memory of a training run by how the base is held: bf16, or quantised to fp8.

    .venv/bin/python -m modular_safety_lora.lab.benchmarks training_memory [--steps 2]

A seeded network of Flux's class with as many blocks as Flux has, 330 million weights, one picture
of 128x128 pixels, rank 8, every attention layer, computed in bf16, with and without gradient
checkpointing; each arm in a process of its own, which gives freed memory back at once. What a run
takes is the weights as they are held, and what the process (RSS) grew by at most while it trained.
Nothing is asserted.
"""

import tempfile
from functools import partial
from pathlib import Path

import torch

from ...training.data import Dataset
from .. import zoo
from ..zoo.quantised import quantised
from . import harness, models

FAMILY = "Flux"
SIZES = {"hidden_size": 512, "num_heads": 16, "depth": 19, "depth_single_blocks": 38}
HELD = ("bf16", "fp8")


def measured(held: str, checkpointing: bool, steps: int) -> dict[str, float]:
    """Megabytes of the weights, and of the most that a run took beside them."""
    made = {
        "bf16": partial(zoo.build, held=torch.bfloat16, cast=torch.bfloat16),
        "fp8": partial(quantised, name="float8_e4m3fn", other=torch.bfloat16),
    }
    model = made[held](FAMILY, sizes=SIZES)
    weights = sum(each.nbytes for each in model.model.diffusion_model.state_dict().values())
    one = zoo.conditionings(FAMILY, 1)[0]
    dataset = Dataset([torch.randn(1, 16, 16, 16)], [one], [[0]], "x")
    told = {"gradient_checkpointing": checkpointing, "precision": "bf16"}
    with tempfile.TemporaryDirectory() as folder:
        # what a first run imports is no part of it
        models.trained(made[held](FAMILY), dataset, Path(folder, "w.safetensors"), steps, **told)
        with harness.Peak() as peak:
            models.trained(model, dataset, Path(folder, "x.safetensors"), steps, **told)
    return {"weights": weights / 2**20, "beside": peak.mb}


FLAGS = {"steps": 2}


def main(options) -> None:
    harness.head("base", "gradient checkpointing", "weights, MB", "beside them, MB", "of bf16's")
    for checkpointing in (False, True):
        whole = {}
        for held in HELD:
            found = harness.alone(measured, held, checkpointing, options.steps, frugal=True)
            whole[held] = sum(found.values())
            sizes = (f"{each:.0f}" for each in found.values())
            said = "yes" if checkpointing else "no"
            harness.row(held, said, *sizes, f"{whole[held] / whole['bf16']:.2f}")
