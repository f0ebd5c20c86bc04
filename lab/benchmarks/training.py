"""Train Task LoRA against ComfyUI's TrainLoraNode: seconds a step, and peak memory.

    python dev.py setup
    .venv/bin/python -m modular_safety_lora.lab.benchmarks.training [--turns 3] [--steps 20]

The small seeded SD1.5-shaped checkpoint, pictures of 64x64 pixels, batch 2, rank 8, fp32, the same
for all arms; loaded and trained in inference mode, as the host runs nodes. "Defaults" is what each
trainer does when only these are given (ours: attention layers; stock: every layer, weights patched,
gradient checkpointing). "Same layers" is every linear and convolution layer, against the stock
trainer's bypass mode, with and without gradient checkpointing in both. The arms take turns in one
process; a step's time is the difference of a long and a short run. Peak memory (RSS of the whole
process above what the loaded model took) is read in a process of its own for each arm. Nothing is
asserted.
"""

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from .merge import Peak

SHORT = 3
BATCH, RANK, PICTURES = 2, 8, 4
OURS = {
    "ours, defaults": {},
    "ours, same layers": {"targets": "all"},
    "ours, same layers, checkpointing": {"targets": "all", "gradient_checkpointing": True},
    "ours, anchored": {"safety_mode": "anchored"},
    "ours, anchored in every step": {"safety_mode": "anchored", "anchor_every": 1},
    "ours, anchored, same layers": {"targets": "all", "safety_mode": "anchored"},
}
STOCK = {
    "stock, defaults": {"bypass_mode": False, "gradient_checkpointing": True},
    "stock, bypass": {"bypass_mode": True, "gradient_checkpointing": False},
    "stock, bypass, checkpointing": {"bypass_mode": True, "gradient_checkpointing": True},
}
COMPARED = [  # (ours, the peer)
    ("ours, defaults", "stock, defaults"),
    ("ours, same layers", "stock, bypass"),
    ("ours, same layers, checkpointing", "stock, bypass, checkpointing"),
    ("ours, anchored", "ours, defaults"),
    ("ours, anchored in every step", "ours, defaults"),
    ("ours, anchored, same layers", "ours, same layers"),
]


class World:
    """The loaded checkpoint and a dataset, as the nodes of a workflow hand them on."""

    def __init__(self):
        import torch

        from ...host.prompts import encode_texts
        from ...modules.files import load_safety
        from .. import assets

        models = assets.shared_models()
        import comfy.sd

        self.model, clip, _ = comfy.sd.load_checkpoint_guess_config(
            str(models / "checkpoints" / assets.CHECKPOINT)
        )[:3]
        self.texts = encode_texts(clip, ["a ball on stripes", "nude"])
        generator = torch.Generator().manual_seed(1)
        self.latents = [{"samples": torch.randn(PICTURES, 4, 8, 8, generator=generator)}]
        self.safety = load_safety(models / "loras" / assets.SAFETY, assets.SAFETY)

    def train(self, arm: str, steps: int) -> None:
        if arm in OURS:
            self._ours(OURS[arm], steps)
        else:
            self._stock(STOCK[arm], steps)

    def _ours(self, changed: dict, steps: int) -> None:
        from ...training.data import of_sockets
        from ...training.engine.adapters import AdapterSettings
        from ...training.engine.run import TrainingJob
        from ...training.settings import Settings
        from ...training.task import train_task

        settings = Settings(
            steps=steps,
            batch_size=BATCH,
            adapter=AdapterSettings(RANK, float(RANK)),
            precision="fp32",
            **changed,
        )
        with tempfile.TemporaryDirectory() as folder:
            job = TrainingJob(Path(folder, "task.safetensors"))
            dataset = of_sockets(self.latents, [self.texts["a ball on stripes"]])
            train_task(
                self.model,
                dataset,
                self.texts,
                settings,
                job,
                safety=[self.safety],
                concepts=["nude"],
            )

    def _stock(self, changed: dict, steps: int) -> None:
        from comfy_extras.nodes_train import TrainLoraNode

        defaults = {
            each.id: each.default
            for each in TrainLoraNode.define_schema().inputs
            if hasattr(each, "default")
        }
        same = {
            "batch_size": BATCH,
            "rank": RANK,
            "training_dtype": "fp32",
            "lora_dtype": "fp32",
            "steps": steps,
        }
        inputs = {"latents": self.latents[0], "positive": self.texts["a ball on stripes"]}
        given = {**defaults, **same, **changed, **inputs, "model": self.model}
        TrainLoraNode.execute(**{name: [value] for name, value in given.items()})


def times(turns: int, steps: int) -> dict[str, list[float]]:
    """Seconds a step of every arm, in turns."""
    world, took = World(), {arm: [] for arm in (*OURS, *STOCK)}
    for turn in range(turns):
        for arm in list(took) if turn % 2 else list(reversed(took)):
            spans = []
            for length in (SHORT, SHORT + steps):
                start = time.perf_counter()
                world.train(arm, length)
                spans.append(time.perf_counter() - start)
            took[arm].append((spans[1] - spans[0]) / steps)
    return took


def peak(arm: str, steps: int) -> float:
    """Bytes above the loaded model's, at most, while an arm trains."""
    world = World()
    with Peak() as watched:
        world.train(arm, steps)
    return watched.most - watched.before


def in_process(what: str, *arguments: object) -> object:
    command = [
        sys.executable,
        "-m",
        "modular_safety_lora.lab.benchmarks.training",
        "--worker",
        json.dumps([what, *arguments]),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout.strip().splitlines()[-1])


def worker(what: str, *arguments: object) -> object:
    import torch

    from ...host.comfyui import enter_comfyui

    enter_comfyui()
    import comfy.utils

    comfy.utils.PROGRESS_BAR_ENABLED = False
    with (
        torch.inference_mode(),
        Path(os.devnull).open("w") as silent,
        contextlib.redirect_stdout(silent),
    ):
        return {"times": times, "peak": peak}[what](*arguments)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        print(json.dumps(worker(*json.loads(options.worker))))
        return
    took = {
        arm: statistics.median(each)
        for arm, each in in_process("times", options.turns, options.steps).items()
    }
    memory = {arm: in_process("peak", arm, options.steps) / 2**20 for arm in took}
    print(
        "| trainer | s a step | peak MB | against | speed ratio | peak ratio |\n"
        "| --- | --- | --- | --- | --- | --- |"
    )
    for ours, peer in COMPARED:
        print(
            f"| {ours} | {took[ours]:.3f} | {memory[ours]:.0f}"
            f" | {peer}: {took[peer]:.3f} s, {memory[peer]:.0f} MB"
            f" | {took[peer] / took[ours]:.2f} | {memory[ours] / memory[peer]:.2f} |"
        )


if __name__ == "__main__":
    main()
