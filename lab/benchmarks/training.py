"""Train Task LoRA against ComfyUI's TrainLoraNode: seconds a step, and peak memory.

    python dev.py setup
    .venv/bin/python -m modular_safety_lora.lab.benchmarks.training [--turns 3] [--steps 20]
        [--model SD15|Flux|QwenImage]

The small seeded SD1.5-shaped checkpoint and pictures of 64x64 pixels, or a seeded network of
another family's class and pictures of 256x256; batch 2, rank 8, fp32, the same for all arms; loaded
and trained in inference mode, as the host runs nodes. "Defaults" is what each trainer does when
only these are given (ours: attention layers; stock: every layer, weights patched, gradient
checkpointing). "Same layers" is every linear and convolution layer, against the stock trainer's
bypass mode, with and without gradient checkpointing in both. The arms take turns in one process; a
step's time is the difference of a long and a short run. Peak memory (RSS of the whole process above
what the loaded model took) is read in a process of its own for each arm. An arm that raises is
listed with its reason. Nothing is asserted.
"""

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from .merge import Peak
from .training_world import OURS, SD15, SIZES, STOCK, World

SHORT = 3
COMPARED = [  # (ours, the peer)
    ("ours, defaults", "stock, defaults"),
    ("ours, same layers", "stock, bypass"),
    ("ours, same layers, checkpointing", "stock, bypass, checkpointing"),
    ("ours, anchored", "ours, defaults"),
    ("ours, anchored in every step", "ours, defaults"),
    ("ours, anchored, same layers", "ours, same layers"),
]


def arms(name: str) -> list[str]:
    """The arms of a model: a network of another family has no safety module to hold."""
    return [arm for arm in (*OURS, *STOCK) if name == SD15 or "anchored" not in arm]


def times(name: str, turns: int, steps: int) -> dict[str, list[float] | str]:
    """Seconds a step of every arm, in turns, or why it raised."""
    world, took = World(name), {arm: [] for arm in arms(name)}
    for turn in range(turns):
        for arm in list(took) if turn % 2 else list(reversed(took)):
            if isinstance(took[arm], str):
                continue
            spans = []
            try:
                for length in (SHORT, SHORT + steps):
                    start = time.perf_counter()
                    world.train(arm, length)
                    spans.append(time.perf_counter() - start)
            except RuntimeError as error:
                took[arm] = str(error).splitlines()[0]
            else:
                took[arm].append((spans[1] - spans[0]) / steps)
    return took


def peak(name: str, arm: str, steps: int) -> float:
    """Bytes above the loaded model's, at most, while an arm trains, without what it imports."""
    world = World(name)
    world.train(arm, 1)
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
    # freed memory is given back at once; that takes time, which is measured without it
    slow = {"MALLOC_MMAP_THRESHOLD_": str(2**16)} if what == "peak" else {}
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | slow)
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
    parser.add_argument("--model", choices=[SD15, *SIZES], default=SD15)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        print(json.dumps(worker(*json.loads(options.worker))))
        return
    took = in_process("times", options.model, options.turns, options.steps)
    failed = {arm: reason for arm, reason in took.items() if isinstance(reason, str)}
    took = {arm: statistics.median(each) for arm, each in took.items() if arm not in failed}
    memory = {arm: in_process("peak", options.model, arm, options.steps) / 2**20 for arm in took}
    print(
        "| trainer | s a step | peak MB | against | speed ratio | peak ratio |\n"
        "| --- | --- | --- | --- | --- | --- |"
    )
    for ours, peer in COMPARED:
        if ours in took and peer in took:
            print(
                f"| {ours} | {took[ours]:.3f} | {memory[ours]:.0f}"
                f" | {peer}: {took[peer]:.3f} s, {memory[peer]:.0f} MB"
                f" | {took[peer] / took[ours]:.2f} | {memory[ours] / memory[peer]:.2f} |"
            )
        elif ours in took:
            print(f"| {ours} | {took[ours]:.3f} | {memory[ours]:.0f} | {peer} | | |")
    for arm, reason in failed.items():
        print(f"{arm} raised: {reason}")


if __name__ == "__main__":
    main()
