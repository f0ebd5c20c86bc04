"""Train Task LoRA against ComfyUI's TrainLoraNode: seconds a step, and peak memory.

    python dev.py setup
    .venv/bin/python -m modular_safety_lora.lab.benchmarks training [--turns 3] [--steps 20]
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

import contextlib
import statistics
from collections.abc import Iterator
from functools import partial

import comfy.utils
import torch

from ..quiet import quiet
from . import harness
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


@contextlib.contextmanager
def started(name: str) -> Iterator[World]:
    """The model in ComfyUI, in inference mode as the host runs nodes, without progress bars."""
    comfy.utils.PROGRESS_BAR_ENABLED = False
    with torch.inference_mode(), quiet():
        yield World(name)


def a_step(world: World, arm: str, steps: int) -> float:
    """Seconds of a step."""
    brief, long = (
        harness.seconds(partial(world.train, arm, length)) for length in (SHORT, SHORT + steps)
    )
    return (long - brief) / steps


def tried(world: World, arm: str, steps: int) -> float | str:
    """Seconds of a step, or why it raised."""
    try:
        return a_step(world, arm, steps)
    except RuntimeError as error:
        return str(error).splitlines()[0]


def times(name: str, turns: int, steps: int) -> dict[str, list[float | str]]:
    """Seconds of a step of every arm, in turns."""
    with started(name) as world:
        works = {arm: partial(tried, world, arm, steps) for arm in arms(name)}
        return harness.in_turns(works, turns)


def peak(name: str, arm: str, steps: int) -> float:
    """Megabytes above the loaded model's, at most, while an arm trains, without what it imports."""
    with started(name) as world:
        world.train(arm, 1)
        with harness.Peak() as watched:
            world.train(arm, steps)
    return watched.mb


FLAGS = {"turns": 3, "steps": 20, "model": {"choices": [SD15, *SIZES], "default": SD15}}


def main(options) -> None:
    found = harness.alone(times, options.model, options.turns, options.steps)
    failed = {arm: why for arm, each in found.items() for why in each[:1] if isinstance(why, str)}
    took = {arm: statistics.median(each) for arm, each in found.items() if arm not in failed}
    memory = {
        arm: harness.alone(peak, options.model, arm, options.steps, frugal=True) for arm in took
    }
    harness.head("trainer", "s a step", "peak MB", "against", "speed ratio", "peak ratio")
    for ours, peer in COMPARED:
        if ours not in took:
            continue
        beside = (peer, "", "")
        if peer in took:
            beside = (
                f"{peer}: {took[peer]:.3f} s, {memory[peer]:.0f} MB",
                f"{took[peer] / took[ours]:.2f}",
                f"{memory[ours] / memory[peer]:.2f}",
            )
        harness.row(ours, f"{took[ours]:.3f}", f"{memory[ours]:.0f}", *beside)
    for arm, reason in failed.items():
        print(f"{arm} raised: {reason}")
