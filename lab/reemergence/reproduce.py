"""The whole benchmark: rows from every arm, then results.json, the table and the charts."""

import hashlib
import importlib.metadata
import json
import platform
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from .recipe import Recipe

FOLDER = Path(__file__).resolve().parent
SEEDS = (201, 202, 203, 204, 205)  # none was used while the recipe was chosen
CODE = ("world.py", "text.py", "base.py", "detector.py", "arms.py", "measures.py", "run.py")


def reproduce(
    seeds: Sequence[int], processes: int, output: Path | None = None, no_training: bool = False
) -> None:
    """Train and measure what is not there yet, and write all results into `output`.

    Without an `output` they go into this folder. Each arm's row is kept at once in
    `.host/reemergence-<digest of recipe, code and base>`: a run that was stopped goes on.
    """
    start = time.monotonic()
    from . import workers

    recipe, output = Recipe(), output or FOLDER
    shipped = FOLDER / "base.safetensors"
    folder = work_folder(recipe, shipped)
    if no_training:
        rows = workers.finished(recipe, seeds, folder)
    else:
        rows = workers.collect(recipe, seeds, processes, shipped, folder)
    write(rows, recipe, shipped, output, time.monotonic() - start)
    write_samples(folder, recipe, min(row["seed"] for row in rows), output)


def work_folder(recipe: Recipe, weights: Path) -> Path:
    """Where rows and modules are kept; another recipe, base or code has another."""
    digest = hashlib.sha256(json.dumps(asdict(recipe)).encode() + weights.read_bytes())
    for name in CODE:
        digest.update((FOLDER / name).read_bytes())
    return FOLDER.parents[1] / ".host" / f"reemergence-{digest.hexdigest()[:8]}"


def write(rows: list[dict], recipe: Recipe, weights: Path, output: Path, seconds: float) -> None:
    """results.json, table.md and the charts."""
    from . import base, charts, report, text, world

    runs = report.runs_of(rows, recipe)
    entries = report.summary(runs, recipe)
    results = {
        "runs": runs,
        "summary": entries,
        "tests": report.tests(runs, recipe),
        "recipe": asdict(recipe),
        "world": {
            "kinship": text.KINSHIP,
            "seen": world.SEEN,
            "unseen": world.UNSEEN,
            "retained": world.OTHERS,
        },
        "base": (
            {"sha256": base.sha256(weights), "unet": {k: str(v) for k, v in base.UNET.items()}}
            | {"pretraining": asdict(base.Pretraining())}
        ),
        "tried": json.loads((FOLDER / "tried.json").read_text(encoding="utf-8")),
        "versions": versions(),
        "seconds": {
            "this run": round(seconds),
            "all rows": round(sum(row["seconds"]["all"] for row in rows)),
        },
    }
    output.mkdir(parents=True, exist_ok=True)
    (output / "results.json").write_text(json.dumps(results, indent=1), encoding="utf-8")
    (output / "table.md").write_text(report.table(entries), encoding="utf-8")
    for name, picture in charts.of(results).items():
        picture.save(output / f"{name}.png", optimize=True)
    print(report.table(entries))


def write_samples(folder: Path, recipe: Recipe, seed: int, output: Path) -> None:
    """Sampled pictures of the concept's prompts, a strip for each arm, of one seed."""
    from . import arms, charts
    from .run import Unit, row_file

    for method in recipe.methods:
        strips = []
        for arm in charts.SHOWN:
            unit = Unit("any" if arm in arms.BY_SEED else method, seed)
            strips.append((charts.NAMES[arm], row_file(folder, unit, arm, 0).with_suffix(".png")))
        charts.samples(strips).save(output / f"samples-{method}.png", optimize=True)


def versions() -> dict[str, str]:
    import comfyui_version

    packages = ("torch", "peft", "safetensors", "numpy", "scipy")
    found = {name: importlib.metadata.version(name) for name in packages}
    return found | {"python": platform.python_version(), "comfyui": comfyui_version.__version__}
