"""One unit of the benchmark: a seed's arms, trained and measured.

Every arm's row is a small JSON file, kept at once.
"""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from ...host.sampling import as_picture
from ...modules.errors import SafetyError
from ...storage.whole import write_text
from . import arms, base, measures, world
from .arms import Stage, weights_of
from .recipe import Recipe

SHOWN = 16  # pictures of each arm in the sample sheet
OVER_TIME = ("sequential", "modular", "anchored")


@dataclass(frozen=True)
class Unit:
    """What one worker does at a time; `method` is "any" for the arms without a safety module."""

    method: str
    seed: int

    def rows(self, recipe: Recipe) -> Iterator[tuple[str, int]]:
        """(arm, mark) of its rows; mark 0 is the finished training."""
        if self.method == "any":
            yield from ((arm, 0) for arm in arms.BY_SEED)
            return
        yield from ((arm, 0) for arm in arms.ARMS if arm not in arms.BY_SEED)
        marks = [mark for mark in recipe.marks if 0 < mark < recipe.task_steps]
        yield from ((arm, mark) for arm in OVER_TIME for mark in marks)


def row_file(folder: Path, unit: Unit, arm: str, mark: int) -> Path:
    return folder / f"{arm}-{unit.method}-{unit.seed}{f'-at-{mark}' if mark else ''}.json"


def work(unit: Unit, recipe: Recipe, folder: Path, weights: Path) -> float:
    """Make the rows of a unit that are not there yet; return the seconds."""
    start = time.monotonic()
    (folder / "modules").mkdir(parents=True, exist_ok=True)
    missing = [row for row in unit.rows(recipe) if not row_file(folder, unit, *row).exists()]
    if missing:
        stage = Stage(base.load(weights), recipe, unit.seed, folder / "modules")
        of_base = _directions(stage.model, recipe)
        if unit.method == "any":
            # merged by every method, as task_only's is: trained before they start
            stage.task("hostile", unit.method)
        for arm, mark in missing:
            row, shown = measured(stage, of_base, arm, unit.method, mark)
            file = row_file(folder, unit, arm, mark)
            as_picture(torch.cat(list(shown[:: max(1, len(shown) // SHOWN)][:SHOWN]), dim=1)).save(
                file.with_suffix(".png")
            )
            write_text(file, json.dumps(row))
    return time.monotonic() - start


def measured(
    stage: Stage, of_base: dict[str, torch.Tensor], arm: str, method: str, mark: int
) -> tuple[dict, torch.Tensor]:
    """One arm's row, and pictures of it; recovery needs other rows, and is taken in report.py."""
    start = time.monotonic()
    model = stage.model_of(arm, method, mark)
    trained = time.monotonic() - start
    refused = lock_refuses(model)
    # The same weights without the lock, so that what it refuses can be looked at as well.
    model = base.new_model(weights_of(model))
    found = _directions(model, stage.recipe)
    row = {
        "arm": arm,
        "method": method,
        "seed": stage.seed,
        "steps": mark or stage.recipe.task_steps,
    }
    row |= {"gain": {name: measures.gain(found[name], of_base[name]) for name in found}}
    row |= {"cosine": cosine(stage, model, arm, method, mark), "lock_refuses": refused}
    row |= measures.losses(model, stage.recipe.held_out)
    rates, shown = measures.rates(model, stage.recipe, stage.seed, brief=bool(mark))
    seconds = {"training": round(trained, 1), "all": round(time.monotonic() - start, 1)}
    return row | {"rates": rates, "seconds": seconds}, shown


def lock_refuses(model) -> bool:
    """Whether Modular Merge's lock stops this model when it samples."""
    try:
        measures.sampled(model, world.SEEN[:1], each=1, guidance=1.0, steps=1, seed=0)
    except SafetyError:
        return True
    return False


def cosine(stage: Stage, model, arm: str, method: str, mark: int) -> float | None:
    """cos(dW_task, dW_safety) over the weights that the safety module changes.

    None without a task change.
    """
    if arm in ("base", "safe", "task_only"):
        return None
    if arm == "sequential_full":
        whole, safe, bare = (
            weights_of(each) for each in (model, stage.model_of("safe", method), stage.model)
        )
        changed = [name for name in safe if not torch.equal(safe[name], bare[name])]
        ours, held = (
            torch.cat([(a[n] - b[n]).flatten() for n in changed])
            for a, b in ((whole, safe), (safe, bare))
        )
        return torch.nn.functional.cosine_similarity(ours, held, dim=0).item()
    return stage.merged(arm, method, mark).report["modules"][-1]["interference"]["cosine"]


def _directions(model, recipe: Recipe) -> dict[str, torch.Tensor]:
    prompts = {"seen": world.SEEN, "unseen": world.UNSEEN}
    return {
        name: measures.directions(model, each, recipe.held_out) for name, each in prompts.items()
    }
