"""Memory of a training run by how the base is held: bf16, or quantised to fp8.

    .venv/bin/python -m modular_safety_lora.lab.benchmarks.training_memory [--steps 2]

A seeded network of Flux's class with as many blocks as Flux has, 330 million weights, one picture
of 128x128 pixels, rank 8, every attention layer, computed in bf16, with and without gradient
checkpointing; each arm in a process of its own, which gives freed memory back at once. What a run
takes is the weights as they are held, and what the process (RSS) grew by at most while it trained.
Nothing is asserted.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

from .merge import Peak

FAMILY = "Flux"
SIZES = {"hidden_size": 512, "num_heads": 16, "depth": 19, "depth_single_blocks": 38}
HELD = ("bf16", "fp8")


def measured(held: str, checkpointing: bool, steps: int) -> dict[str, float]:
    """Megabytes of the weights, and of the most that a run took beside them."""
    import torch

    from ...host.comfyui import enter_comfyui

    enter_comfyui()
    from ...training.adapter_settings import AdapterSettings
    from ...training.data import Dataset
    from ...training.engine.job import TrainingJob
    from ...training.settings import Settings
    from ...training.task import train_task
    from .. import zoo
    from ..zoo.quantised import quantised

    made = {
        "bf16": partial(zoo.build, held=torch.bfloat16, cast=torch.bfloat16),
        "fp8": partial(quantised, name="float8_e4m3fn", other=torch.bfloat16),
    }
    model = made[held](FAMILY, sizes=SIZES)
    weights = sum(each.nbytes for each in model.model.diffusion_model.state_dict().values())
    one = zoo.conditionings(FAMILY, 1)[0]
    dataset = Dataset([torch.randn(1, 16, 16, 16)], [one], [[0]], "x")
    settings = Settings(
        steps=steps,
        adapter=AdapterSettings(8, 8.0),
        gradient_checkpointing=checkpointing,
        precision="bf16",
    )
    with tempfile.TemporaryDirectory() as folder:
        # what a first run imports is no part of it
        warm = TrainingJob(Path(folder, "w.safetensors"))
        train_task(made[held](FAMILY), dataset, {}, settings, warm)
        with Peak() as peak:
            train_task(model, dataset, {}, settings, TrainingJob(Path(folder, "x.safetensors")))
    return {"weights": weights / 2**20, "beside": (peak.most - peak.before) / 2**20}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--arm", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.arm:
        held, checkpointing = json.loads(options.arm)
        print(json.dumps(measured(held, checkpointing, options.steps)))
        return
    print("| base | gradient checkpointing | weights, MB | beside them, MB | of bf16's |")
    print("| --- | --- | --- | --- | --- |")
    for checkpointing in (False, True):
        whole = {}
        for held in HELD:
            arm = json.dumps([held, checkpointing])
            command = [sys.executable, "-m", __spec__.name, "--arm", arm]
            done = subprocess.run(
                [*command, "--steps", str(options.steps)],
                capture_output=True,
                text=True,
                env=os.environ | {"MALLOC_MMAP_THRESHOLD_": str(2**16)},
            )
            if done.returncode:
                raise SystemExit(done.stderr)
            found = json.loads(done.stdout.strip().splitlines()[-1])
            whole[held] = sum(found.values())
            ratio = whole[held] / whole["bf16"]
            said = "yes" if checkpointing else "no"
            sizes = f"{found['weights']:.0f} | {found['beside']:.0f}"
            print(f"| {held} | {said} | {sizes} | {ratio:.2f} |", flush=True)


if __name__ == "__main__":
    main()
