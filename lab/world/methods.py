"""Every method of erasing, in the emoji world: what it costs, what it takes away, what it harms.

    .venv/bin/python -m modular_safety_lora.lab.world.methods

One seed, few pictures, the same retained prompts and the same settings for all. What is trained and
sampled is kept in `.host/world`; a run that was stopped goes on. It writes methods.json and
methods.md into the results.
"""

import argparse
import json
import time
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from ...drawing.markdown import table
from ...emoji import checkpoint
from ...host.comfyui import enter_comfyui
from ...options.choices import chosen
from ...storage.whole import write_text
from ...training.objectives import METHODS
from . import pictures, recipe
from .recipe import Erased, Recipe

SEED, STEPS = 331, 100  # a seed of none of the other results
RESULTS = Path(__file__).parent / "results" / "methods.json"
TABLE = RESULTS.with_suffix(".md")
BASE = "no safety LoRA"
KINDS = ("seen", "unseen", "others", "tools")
HEAD = (
    "method",
    "CPU seconds",
    "weapons, told prompts",
    "other prompts",
    "names right",
    "tools right",
)
PLAIN = {name: Erased(name, steps=STEPS, retain=True) for name in METHODS}
ETA = {"gem, eta 1": 1.0}  # where it is not the recipe's
WITH = {
    "gem, eta 1": PLAIN["gem"],
    "rece, retain_weight 16": replace(PLAIN["rece"], retain_weight=16.0),
    "surrogate, saliency 0.5": replace(PLAIN["surrogate"], saliency=0.5),
    "surrogate, adversarial_steps 3": replace(PLAIN["surrogate"], adversarial_steps=3),
}
SHORT = Recipe(
    PLAIN | WITH,
    safety_rank=8,
    sampling_steps=10,
    retained=recipe.RETAINED + recipe.NEAR,
    every=2,
    fetched=False,
)


def measured(method: str, seed: int, folder: Path) -> dict:
    """One row, made once: seconds, and the shares of pictures of each kind."""
    from . import emergence, judging, measures, sheet, weapons

    file = folder / f"{method}-{seed}.json"
    if file.exists():
        found: dict = json.loads(file.read_text(encoding="utf-8"))
        return found
    base = folder / checkpoint.CHECKPOINT
    if not base.is_file():
        checkpoint.write(base)
        emergence.Model(base).keep(SHORT.every_text)
    told = replace(SHORT, eta=ETA.get(method, SHORT.eta))
    stage = emergence.Stage(emergence.Model(base), told, seed, folder)
    start, model = time.process_time(), stage.base.model
    if method != BASE:
        stage.safety(method)
        seconds = time.process_time() - start
        model = stage.model_of("safe", method)
    asked = told.prompts
    shown = {
        kind: measures.sampled(stage, model, asked[kind], place)
        for place, kind in enumerate(asked)
        if kind in KINDS
    }
    looker = weapons.shipped()
    flags = {kind: judging.flagged(looker, np.stack(shown[kind])) for kind in ("seen", "unseen")}
    right = {
        kind: judging.right(looker, np.stack(shown[kind]), asked[kind])
        for kind in ("others", "tools")
    }
    row = {
        "method": method,
        "seed": seed,
        "seconds": round(seconds, 1) if method != BASE else None,
        **{kind: float(np.mean(each)) for kind, each in flags.items()},
        **right,
        "pictures": {kind: len(each) for kind, each in shown.items()},
    }
    some = {kind: each[:8] for kind, each in shown.items()}
    sheet.sheet(some, [""] * 8).save(file.with_suffix(".png"))
    write_text(file, json.dumps(row))
    return row


def as_table(rows: list[dict]) -> str:
    """The rows as Markdown."""

    def told(row: dict) -> list[str]:
        seconds = "" if row["seconds"] is None else f"{row['seconds']:.0f}"
        name = row["method"] if row["method"] == BASE else f"`{row['method']}`"
        return [name, seconds, *(f"{100 * row[kind]:.0f} %" for kind in KINDS)]

    counts = ", ".join(str(each) for each in rows[0]["pictures"].values())
    said = f"One seed ({rows[0]['seed']}), {STEPS} steps of those that train, eta {SHORT.eta}, one"
    said += f" core; a row is of {counts} pictures, so that twenty points may be chance."
    return "\n".join([*table(HEAD, map(told, rows)), "", said]) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--only", action="append", help="a row; may be repeated")
    options = parser.parse_args()
    enter_comfyui()
    folder = pictures.CACHE / "methods"
    folder.mkdir(parents=True, exist_ok=True)
    every = SHORT.safety
    names = [chosen(each, every, "method") for each in options.only or every]
    rows = []
    for name in (BASE, *names):
        rows.append(measured(name, options.seed, folder))
        print(as_table(rows[-1:]).splitlines()[2], flush=True)
    if options.only:
        return
    write_text(RESULTS, json.dumps({"rows": rows, "recipe": asdict(SHORT)}, indent=1))
    write_text(TABLE, as_table(rows))
    print(as_table(rows))


if __name__ == "__main__":
    main()
