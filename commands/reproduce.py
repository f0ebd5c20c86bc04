"""Measure re-emergence: train and measure every arm in a small world, write what came of it.

    python -m modular_safety_lora reproduce [--short] [--workers 2] [--seeds 301 302 ...]

It writes results.json, a table and pictures. Each arm's row is kept at once, so a run that was
stopped goes on. It needs the repository: what measures is not shipped.
"""

import argparse
import importlib
import os
from pathlib import Path

from .kinds import folder

BENCHMARK = "lab.world.reproduce"  # where it is, below the pack


def options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--short", action="store_true", help="one seed, one safety LoRA, a quarter of the pictures")
    add("--workers", type=int, default=os.cpu_count() or 1, help="processes of one thread each")
    add("--recipe", help="one of the recipes, such as thorough; all of them otherwise")
    add("--seeds", type=int, nargs="+", help="a run for each; without it, the seeds of the results")
    add(
        "--no-training",
        action="store_true",
        help="write the results of the seeds that are complete",
    )
    add("--unfinished", action="store_true", help="write seeds that are not complete too")
    add("--output", type=folder, help="folder for the results; without it, the benchmark's own")


def work(options: argparse.Namespace) -> None:
    if not (Path(__file__).parents[1] / "lab").is_dir():
        raise ValueError(
            "The benchmark is not shipped with the pack: run this in a clone of its repository."
        )
    pack = __package__.rpartition(".")[0]
    benchmark = importlib.import_module(f"{pack}.{BENCHMARK}")
    benchmark.reproduce(
        options.seeds,
        options.workers,
        options.output,
        no_training=options.no_training,
        short=options.short,
        only=options.recipe,
        unfinished=options.unfinished,
    )
