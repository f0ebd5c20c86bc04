"""The units of a run shared out among one-thread worker processes, and their rows read back."""

import concurrent.futures
import json
import logging
import multiprocessing
import os
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from ...host.comfyui import enter_comfyui
from .recipe import Recipe


def collect(
    recipe: Recipe, seeds: Sequence[int], workers: int, weights: Path, folder: Path
) -> list[dict]:
    """All rows; what is missing is made by workers, the arms without a safety module first."""
    os.environ.update({"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"})  # of the workers
    # What all methods of a seed share is trained first: no two processes may train one module.
    rounds = [
        [("any", seed) for seed in seeds],
        [(method, seed) for method in recipe.methods for seed in seeds],
    ]
    start, done, total = time.monotonic(), 0, sum(map(len, rounds))
    spawn = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(
        workers, spawn, enter, (spawn.Value("i", 0),)
    ) as pool:
        for units in rounds:
            waiting = {pool.submit(_work, *unit, recipe, folder, weights): unit for unit in units}
            for each in concurrent.futures.as_completed(waiting):
                (method, seed), seconds, done = waiting[each], each.result(), done + 1
                passed = (time.monotonic() - start) / 60
                print(
                    f"[{done}/{total}] {method}, seed {seed}: {seconds:.0f} s; {passed:.1f} min",
                    flush=True,
                )
    return finished(recipe, seeds, folder)


def finished(recipe: Recipe, seeds: Sequence[int], folder: Path) -> list[dict]:
    """The rows of every seed that is whole."""
    enter_comfyui()
    from .run import Unit, row_file

    rows = []
    for seed in seeds:
        units = [Unit(method, seed) for method in ("any", *recipe.methods)]
        files = [row_file(folder, unit, *row) for unit in units for row in unit.rows(recipe)]
        if all(file.exists() for file in files):
            rows += [json.loads(file.read_text(encoding="utf-8")) for file in files]
    if not rows:
        raise SystemExit(f"No seed of {seeds} is whole yet in {folder}.")
    return rows


def enter(count) -> None:
    """A worker: one thread, and its own core where the system lets it choose."""
    with count.get_lock():
        number = count.value
        count.value += 1
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[number % len(cores)]})
    # on a shared machine two threads that wait for each other are far slower
    torch.set_num_threads(1)
    enter_comfyui()
    logging.disable(logging.WARNING)


def _work(method: str, seed: int, recipe: Recipe, folder: Path, weights: Path) -> float:
    from .run import Unit, work

    return work(Unit(method, seed), recipe, folder, weights)
