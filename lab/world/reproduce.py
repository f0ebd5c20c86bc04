"""Re-emergence in the emoji world: every seed's arms, then results.json, table.md and pictures.

Rows and pictures are kept at once in `.host/world/emergence-<digest of all they follow from>`: a
run that was stopped goes on. Pictures are judged when results are written, so that another detector
needs no sampling.
"""

import concurrent.futures
import dataclasses
import hashlib
import json
import logging
import multiprocessing
import os
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from ...emoji import checkpoint
from ...emoji.files import BASE, DETECTOR
from ...host.comfyui import enter_comfyui
from ...options.choices import chosen
from ...storage.whole import write_text
from . import pictures, recipe
from .recipe import Recipe

FOLDER = Path(__file__).parent / "results"
CODE = ("emergence.py", "measures.py", "pictures.py", "recipe.py", "sets.py", "sets.json")
OF_JUDGE = ("classifiers.py", "styles.py")
SHOWN = 8  # pictures of a kind in a row's sheet
# each with seeds that are fresh: none was used while it was chosen
SEEDS = {
    "esd-x": (301, 302, 303, 304, 305),
    "thorough": (321, 322, 323, 324, 325),
    "precise": (371, 372, 373, 374, 375),
}
RECIPES = {"esd-x": Recipe(), "thorough": recipe.THOROUGH, "precise": recipe.PRECISE}


def reproduce(
    seeds: Sequence[int] | None,
    processes: int,
    output: Path | None = None,
    *,
    no_training: bool = False,
    short: bool = False,
    only: str | None = None,
    unfinished: bool = False,
) -> None:
    """Train and measure what is not there yet, and write all results into `output`.

    The `short` form has one seed and one safety LoRA, samples a quarter of the prompts, and needs
    no pictures but those that ship; without an `output` its results stay beside its rows. `only`
    is one of `RECIPES`; without it all are measured, each into its folder of the results. With
    `unfinished` seeds are written that are not whole.
    """
    names = [chosen(only, RECIPES, "recipe")] if only else ["esd-x"] if short else list(RECIPES)
    enter_comfyui()
    for name in names:
        told = recipe.SHORT if short else RECIPES[name]
        folder, wanted = work_folder(told), seeds or SEEDS[name][: 1 if short else None]
        if not no_training:
            folder.mkdir(parents=True, exist_ok=True)
            collect(wanted, processes, told, folder)
        place = output or (folder / "results" if short else results_of(name))
        write(folder, wanted, told, place, unfinished)
        print(f"\nIn {place}: {', '.join(sorted(file.name for file in place.iterdir()))}")


def results_of(name: str) -> Path:
    """The folder of a recipe's results."""
    return FOLDER if name == "esd-x" else FOLDER / name


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


def collect(seeds: Sequence[int], processes: int, told: Recipe, folder: Path) -> None:
    """Every row, made by processes of one thread each."""
    start = time.monotonic()
    base = folder / checkpoint.CHECKPOINT
    os.environ.update({"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"})  # of the workers
    spawn = multiprocessing.get_context("spawn")
    given = spawn.Value("i", 0)
    with concurrent.futures.ProcessPoolExecutor(processes, spawn, enter, (given,)) as pool:
        pool.submit(prepare, told, base).result()
        # what all methods of a seed share is trained first: no two processes train one module
        for methods in (["any"], list(told.safety)):
            units = [(method, seed) for seed in seeds for method in methods]
            waiting = {pool.submit(work, *unit, told, folder, base): unit for unit in units}
            for each in concurrent.futures.as_completed(waiting):
                (method, seed), seconds = waiting[each], each.result()
                passed = (time.monotonic() - start) / 60
                print(f"{method}, seed {seed}: {seconds:.0f} s; {passed:.1f} min", flush=True)


def work_folder(told: Recipe) -> Path:
    """Where rows, pictures and modules are kept; another recipe, base or code has another."""
    known = json.dumps(asdict(told)).encode() + BASE.read_bytes()
    return pictures.CACHE / f"emergence-{_digest(CODE, known)}"


def judge_file(folder: Path) -> Path:
    return folder / f"judge-{_digest(OF_JUDGE)}.pt"


def _digest(code: Sequence[str], known: bytes = b"") -> str:
    """Of files beside this one, and of what is known besides."""
    digest = hashlib.sha256(known)
    for name in code:
        digest.update((Path(__file__).parent / name).read_bytes())
    return digest.hexdigest()[:8]


def rows_of(method: str, told: Recipe) -> tuple[str, ...]:
    """The arms that one unit of work makes."""
    from .emergence import BY_SEED, arms_of

    return tuple(arm for arm in arms_of(told) if (arm in BY_SEED) == (method == "any"))


def row_file(folder: Path, arm: str, method: str, seed: int) -> Path:
    return folder / f"{arm}-{method}-{seed}.json"


def prepare(told: Recipe, base: Path) -> None:
    """The checkpoint and its texts, once."""
    from .emergence import Model

    if not base.is_file():
        checkpoint.write(base)
        made = Model(base)
        made.keep(told.every_text)
        made.prior(told)


def make_judge(folder: Path, base: Path):
    """The judge of styles, trained once."""
    from . import styles
    from .emergence import Model

    file = judge_file(folder)
    if not file.is_file():
        made = styles.trained(pictures.named(), Model(base).vae, recipe.LEARNED)
        torch.save(made.state_dict(), file)
    judge = styles.style_looker()
    judge.load_state_dict(torch.load(file, weights_only=True))
    return judge.eval()


def work(method: str, seed: int, told: Recipe, folder: Path, base: Path) -> float:
    """Make the rows of a unit that are not there yet; return the seconds."""
    from . import measures, sheet
    from .emergence import Model, Stage

    start = time.monotonic()
    missing = [
        arm for arm in rows_of(method, told) if not row_file(folder, arm, method, seed).exists()
    ]
    if not missing:
        return 0.0
    (folder / "modules").mkdir(exist_ok=True)
    stage = Stage(Model(base), told, seed, folder / "modules")
    for arm in missing:
        row, shown = measures.measured(stage, arm, method)
        file = row_file(folder, arm, method, seed)
        np.savez_compressed(file.with_suffix(".npz"), **shown)
        some = {kind: shown[kind][:SHOWN] for kind in (*recipe.HARM, "in style")}
        sheet.sheet(some, [""] * SHOWN).save(file.with_suffix(".png"))
        write_text(file, json.dumps(row | {"seconds": round(time.monotonic() - start)}))
    return time.monotonic() - start


def write(
    folder: Path, seeds: Sequence[int], told: Recipe, output: Path, unfinished: bool = False
) -> None:
    """results.json, table.md and pictures of the seeds that are whole, or of all that is there."""
    from . import chart, judging, report, weapons
    from .emergence import ARMS

    made = []
    for seed in seeds:
        files = [
            row_file(folder, arm, method, seed)
            for method in ("any", *told.safety)
            for arm in rows_of(method, told)
        ]
        there = [file for file in files if file.exists()]
        if unfinished or len(there) == len(files):
            made += there
    if not made:
        raise SystemExit(f"No seed of {seeds} is whole yet in {folder}.")
    arms = {file.stem.split("-")[0] for file in made}
    told = dataclasses.replace(told, without=tuple(arm for arm in ARMS if arm not in arms))
    looker, judge = weapons.shipped(), None
    if told.fetched:
        judge = make_judge(folder, folder / checkpoint.CHECKPOINT)
    rows = []
    for file in made:
        row = json.loads(file.read_text(encoding="utf-8"))
        with np.load(file.with_suffix(".npz")) as shown:
            rows.append(row | judging.judged(shown, told, looker, judge))
    results = {
        "rows": rows,
        "summary": report.summary(rows, told),
        "tests": report.tests(rows, told),
        "recipe": asdict(told),
        "base": hashlib.sha256(BASE.read_bytes()).hexdigest(),
        "detector": hashlib.sha256(DETECTOR.read_bytes()).hexdigest(),
        "tried": json.loads((FOLDER / "tried.json").read_text(encoding="utf-8")),
    }
    output.mkdir(parents=True, exist_ok=True)
    write_text(output / "results.json", json.dumps(results, indent=1))
    found = results["summary"], results["tests"]
    text = "\n".join([report.short(*found), report.table(found[0]), report.verdicts(found[1])])
    write_text(output / "table.md", text)
    chart.rates(rows, told).save(output / "rates.png", optimize=True)
    for method in told.safety:
        sheets = {
            row["arm"]: row_file(folder, row["arm"], row["method"], row["seed"])
            for row in rows
            if row["seed"] == rows[0]["seed"] and row["method"] in ("any", method)
        }
        drawn = chart.samples({arm: row.with_suffix(".png") for arm, row in sheets.items()})
        drawn.save(output / f"samples-{method}.jpg", quality=85, optimize=True)
    print(text)
