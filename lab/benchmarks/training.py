"""Train Task LoRA against ComfyUI's TrainLoraNode: seconds a step, and peak memory.

    python dev.py setup
    .venv/bin/python -m modular_safety_lora.lab.benchmarks training [--turns 3] [--steps 20]
        [--model SD15|Flux|QwenImage] [--methods]

The small seeded SD1.5-shaped checkpoint and pictures of 64x64 pixels, or a seeded network of
another family's class and pictures of 256x256; batch 2, rank 8, fp32, the same for all arms; loaded
and trained in inference mode, as the host runs nodes. "Defaults" is what each trainer does when
only these are given (ours: attention layers; stock: every layer, weights patched, gradient
checkpointing). "Same layers" is every linear and convolution layer, against the stock trainer's
bypass mode, with and without gradient checkpointing in both. The arms take turns in one process; a
step's time is the difference of a long and a short run. Peak memory (RSS of the whole process above
what the loaded model took) is read in a process of its own for each arm. An arm that raises is
listed with its reason. Nothing is asserted.

With `--methods`: Train Safety LoRA by each of its methods, and by one that searches in every step,
with the defaults but for pictures of 64 pixels: seconds a step and as a multiple of plain ESD's
(esd-x), on the zoo's SD1.5 and its Flux, with the small checkpoint's text encoder, of the CPU on
one thread. All draw the same noise, and stop their pictures at the same steps. What has no steps is
told in seconds in all. It writes results/methods.md.
"""

import contextlib
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

import comfy.utils
import torch

from ...drawing import markdown
from ...host.prompts import encode_texts
from ...storage.whole import write_text
from ...training.engine.job import TrainingJob
from ...training.objectives import DEFAULT, METHODS, Erasure
from ...training.safety import train_safety
from ...training.settings import Settings
from .. import zoo
from ..quiet import quiet
from . import harness, models
from .training_world import OURS, SD15, SIZES, STOCK, World

SHORT = 3
ERASURES = {name: Erasure(name) for name in METHODS}
ERASURES |= {f"{DEFAULT}, adversarial_steps 3": Erasure(adversarial_steps=3)}
TABLE = Path(__file__).parent / "results" / "methods.md"
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


def of_methods(family: str, turns: int, steps: int) -> dict[str, list[float]]:
    """Seconds of a step of every method, or of all of it where it has none, in turns."""
    torch.set_num_threads(1)
    texts = encode_texts(models.small()[1], ["nude", "a ball on stripes"])
    model = zoo.build(family, sizes=zoo.AS_CHECKPOINT[family])

    def seconds(name: str, length: int) -> float:
        start = time.process_time()
        with tempfile.TemporaryDirectory() as folder, quiet():
            job, settings = TrainingJob(Path(folder, "x.safetensors")), Settings(steps=length)
            told = {"surrogates": ["a ball on stripes"], "resolution": 64}
            train_safety(model, texts, ["nude"], settings, job, erasure=ERASURES[name], **told)
        return time.process_time() - start

    def took(name: str) -> float:
        brief, in_steps = seconds(name, 1), not METHODS[ERASURES[name].method].rounds
        return (seconds(name, 1 + steps) - brief) / steps if in_steps else brief

    seconds(DEFAULT, 1)
    return harness.in_turns({name: partial(took, name) for name in ERASURES}, turns)


def as_table(seconds: Mapping[str, Mapping[str, list[float]]]) -> str:
    """What each method costs on each model, as Markdown."""
    rows: list[list[str]] = []
    for title, erasure in ERASURES.items():
        took = {name: statistics.median(found[title]) for name, found in seconds.items()}
        plain = {name: statistics.median(found[DEFAULT]) for name, found in seconds.items()}
        cells = [
            f"{each:.1f} in all"
            if METHODS[erasure.method].rounds
            else f"{each:.2f}, {each / plain[name]:.2f}"
            for name, each in took.items()
        ]
        rows.append([f"`{title}`", *cells])
    heads = [f"{name}: seconds a step, times {DEFAULT}" for name in seconds]
    return "\n".join(markdown.table(("method", *heads), rows)) + "\n"


FLAGS = {
    "methods": {"action": "store_true"},
    "turns": 3,
    "steps": 20,
    "model": {"choices": [SD15, *SIZES], "default": SD15},
}


def main(options) -> None:
    if options.methods:
        families = {"SD1.5": "SD15", "Flux": "Flux"}
        told = options.turns, options.steps
        found = {title: harness.alone(of_methods, key, *told) for title, key in families.items()}
        write_text(TABLE, as_table(found))
        print(as_table(found))
        return
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
