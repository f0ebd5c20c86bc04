"""Measure re-emergence in a toy world: train and measure every arm, and write what came of it.

    python -m modular_safety_lora reproduce [--workers 2] [--seeds 201 202 ...] [--output FOLDER]

It writes results.json, the table and the charts. Each arm's row is kept at once, so a run that was
stopped goes on. It needs the repository: what measures is not shipped.
"""

import argparse
import importlib
import os
from pathlib import Path

SEEDS = (201, 202, 203, 204, 205)  # none was used while the recipe was chosen


def options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--workers", type=int, default=os.cpu_count() or 1, help="processes of one thread each")
    add("--seeds", type=int, nargs="+", default=list(SEEDS), help="a run for each")
    add(
        "--no-training",
        action="store_true",
        help="write what is there, of the seeds that are whole",
    )
    add(
        "--output",
        type=Path,
        help="folder for results.json, the table and the charts; the benchmark's own otherwise",
    )


def work(options: argparse.Namespace) -> None:
    name = f"{__package__.rpartition('.')[0]}.lab.reemergence"
    if not (Path(__file__).parents[1] / "lab").is_dir():
        raise ValueError(
            "The benchmark is not shipped with the pack: run this in a clone of its repository."
        )
    importlib.import_module(f"{name}.reproduce").reproduce(
        options.seeds, options.workers, options.output, options.no_training
    )
