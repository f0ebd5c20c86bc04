"""Modular Merge against the stock chain of LoRA loaders: time to a patched model, and peak memory.

    .venv/bin/python -m modular_safety_lora.lab.benchmarks merge [--sizes sd15 sdxl] \\
        [--tasks 1 4 16]

One safety module and N task modules (plain LoRA, rank 16, every linear layer of the transformer
blocks, fp16 files) on seeded fp16 weights of the real architectures' shapes. Both arms start from
the files on disk and end with the patched weights in place; they take turns in one process. The
time is wall time. Peak memory (the whole process, model included) is read in a process of its own
for each arm. Ratios are ours / stock, of medians; nothing is asserted.
"""

import statistics
import tempfile
from functools import partial
from pathlib import Path

import comfy.model_management
import comfy.sd
import comfy.utils

from ...merge.merge import merge
from . import harness, models


def stock(model, folder: Path, count: int):
    """The chain of stock loaders: what LoraLoaderModelOnly does, once a file."""
    for name in ["safety", *(f"task-{number}" for number in range(count))]:
        lora = comfy.utils.load_torch_file(str(folder / f"{name}.safetensors"))
        model, _ = comfy.sd.load_lora_for_models(model, None, lora, 1.0, 0.0)
    return model


def ours(model, folder: Path, count: int):
    """Load Safety LoRA, Load Task LoRA and Modular Merge, digests and report included."""
    safety, tasks = models.load_loras(folder, count)
    return merge(model, [safety], tasks).model


ARMS = {"stock": stock, "ours": ours}


def patched(arm: str, model, folder: Path, count: int) -> float:
    """Seconds from files on disk to patched weights; the model is given back as it was."""

    def work() -> None:
        merged = ARMS[arm](model, folder, count)
        comfy.model_management.load_models_gpu([merged], force_full_load=True)

    seconds = harness.seconds(work)
    comfy.model_management.unload_all_models()
    return seconds


def measured(size: str, counts: list[int], arms: list[str], repeats: int, folder: str) -> dict:
    """Seconds of every arm by number of task modules, and the peak in megabytes."""
    model, place = models.build(size), Path(folder)
    models.write_loras(model, place, max(counts))
    times = {}
    with harness.Peak() as peak:
        for count in counts:
            works = {arm: partial(patched, arm, model, place, count) for arm in arms}
            times[str(count)] = harness.in_turns(works, repeats)
    return {"times": times, "peak": peak.most / 2**20}


SIZES = list(models.SIZES)
FLAGS = {
    "sizes": harness.several(SIZES, choices=SIZES),
    "tasks": harness.several([1, 4, 16]),
    "repeats": 3,
}


def main(options) -> None:
    harness.head(
        *("size", "task modules", "stock s", "ours s", "time ratio"),
        *("stock peak MB", "ours peak MB", "peak ratio"),
    )
    for size in options.sizes:
        with tempfile.TemporaryDirectory() as folder:
            given = (size, options.tasks, list(ARMS), options.repeats, folder)
            times = harness.alone(measured, *given)["times"]
            for count in options.tasks:
                peaks = [
                    harness.alone(measured, size, [count], [arm], 1, folder)["peak"] for arm in ARMS
                ]
                took = [statistics.median(times[str(count)][arm]) for arm in ARMS]
                harness.row(
                    size,
                    count,
                    *(f"{each:.2f}" for each in took),
                    f"{took[1] / took[0]:.2f}",
                    *(f"{each:.0f}" for each in peaks),
                    f"{peaks[1] / peaks[0]:.3f}",
                )
