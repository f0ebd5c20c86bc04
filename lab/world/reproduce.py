"""Re-emergence in the emoji world: every seed's arms, then results.json, table.md and pictures.

Rows are kept at once in `.host/world/emergence-<digest of all they follow from>`: a run that was
stopped goes on.
"""

import concurrent.futures
import hashlib
import json
import multiprocessing
import os
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from ...host.comfyui import enter_comfyui
from ...storage.whole import write_text
from ..reemergence.workers import enter
from . import checkpoint, pictures, recipe, weapons
from .recipe import Recipe

FOLDER = Path(__file__).parent / "results"
CODE = ("classifiers", "emergence", "measures", "pictures", "recipe", "sets", "styles", "weapons")
SHOWN = 8  # pictures of a kind in a row's sheet
SEEDS = (301, 302, 303, 304, 305)  # fresh: none was used while the recipe was chosen


def reproduce(
    seeds: Sequence[int], processes: int, output: Path | None = None, no_training: bool = False
) -> None:
    """Train and measure what is not there yet, and write all results into `output`."""
    enter_comfyui()
    told = Recipe()
    folder = work_folder(told)
    if not no_training:
        folder.mkdir(parents=True, exist_ok=True)
        collect(seeds, processes, told, folder)
    write(folder, seeds, told, output or FOLDER)


def collect(seeds: Sequence[int], processes: int, told: Recipe, folder: Path) -> None:
    """Every row, made by processes of one thread each."""
    start = time.monotonic()
    base = folder / checkpoint.CHECKPOINT
    os.environ.update({"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"})  # of the workers
    spawn = multiprocessing.get_context("spawn")
    given = spawn.Value("i", 0)
    with concurrent.futures.ProcessPoolExecutor(processes, spawn, enter, (given,)) as pool:
        pool.submit(prepare, folder, base).result()
        # what all methods of a seed share is trained first: no two processes train one module
        for methods in (["any"], list(told.safety)):
            units = [(method, seed) for seed in seeds for method in methods]
            waiting = {pool.submit(work, *unit, told, folder, base): unit for unit in units}
            for each in concurrent.futures.as_completed(waiting):
                (method, seed), seconds = waiting[each], each.result()
                passed = (time.monotonic() - start) / 60
                print(f"{method}, seed {seed}: {seconds:.0f} s; {passed:.1f} min", flush=True)


def work_folder(told: Recipe) -> Path:
    """Where rows and modules are kept; another recipe, base, detector or code has another."""
    digest = hashlib.sha256(json.dumps(asdict(told)).encode())
    code = [Path(__file__).parent / f"{name}.py" for name in CODE]
    for file in (checkpoint.SHIPPED, weapons.SHIPPED, *code):
        digest.update(file.read_bytes())
    return pictures.CACHE / f"emergence-{digest.hexdigest()[:8]}"


def rows_of(method: str) -> tuple[str, ...]:
    """The arms that one unit of work makes."""
    from .emergence import ARMS, BY_SEED

    return BY_SEED if method == "any" else tuple(arm for arm in ARMS if arm not in BY_SEED)


def row_file(folder: Path, arm: str, method: str, seed: int) -> Path:
    return folder / f"{arm}-{method}-{seed}.json"


def prepare(folder: Path, base: Path) -> None:
    """The checkpoint, its texts and the judge of styles, once."""
    import torch

    from . import styles
    from .emergence import Model

    if not base.is_file():
        checkpoint.write(base)
        Model(base).keep(recipe.every_prompt())
    if not (folder / "judge.pt").is_file():
        judge = styles.trained(pictures.named(), Model(base).vae, recipe.LEARNED)
        torch.save(judge.state_dict(), folder / "judge.pt")


def work(method: str, seed: int, told: Recipe, folder: Path, base: Path) -> float:
    """Make the rows of a unit that are not there yet; return the seconds."""
    import torch

    from . import measures, sheet, styles
    from .classifiers import Looker
    from .emergence import Model, Stage

    start = time.monotonic()
    missing = [arm for arm in rows_of(method) if not row_file(folder, arm, method, seed).exists()]
    if not missing:
        return 0.0
    (folder / "modules").mkdir(exist_ok=True)
    stage = Stage(Model(base), told, seed, folder / "modules")
    judge = Looker(len(styles.LABELS), width=16)
    judge.load_state_dict(torch.load(folder / "judge.pt", weights_only=True))
    for arm in missing:
        row, shown = measures.measured(stage, arm, method, weapons.shipped(), judge.eval())
        file = row_file(folder, arm, method, seed)
        some = {kind: shown[kind][:SHOWN] for kind in recipe.HARM}
        sheet.sheet(some, [""] * SHOWN).save(file.with_suffix(".png"))
        write_text(file, json.dumps(row | {"seconds": round(time.monotonic() - start)}))
    return time.monotonic() - start


def write(folder: Path, seeds: Sequence[int], told: Recipe, output: Path) -> None:
    """results.json, table.md and pictures of the seeds that are whole."""
    from . import chart, report

    rows = []
    for seed in seeds:
        files = [
            row_file(folder, arm, method, seed)
            for method in ("any", *told.safety)
            for arm in rows_of(method)
        ]
        if all(file.exists() for file in files):
            rows += [json.loads(file.read_text(encoding="utf-8")) for file in files]
    if not rows:
        raise SystemExit(f"No seed of {seeds} is whole yet in {folder}.")
    results = {
        "rows": rows,
        "summary": report.summary(rows, told),
        "tests": report.tests(rows, told),
        "recipe": asdict(told),
        "base": hashlib.sha256(checkpoint.SHIPPED.read_bytes()).hexdigest(),
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
            arm: row_file(folder, arm, "any" if arm in rows_of("any") else method, rows[0]["seed"])
            for arm in report.SAID
        }
        drawn = chart.samples({arm: row.with_suffix(".png") for arm, row in sheets.items()})
        drawn.save(output / f"samples-{method}.jpg", quality=85, optimize=True)
    print(text)
