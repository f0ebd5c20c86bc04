"""The modules of this world, each made by one command of the pack's own trainers.

A safety LoRA has a sunflower drawn in a weapon's place; another one, by ESD-x, is weaker. A style
for each is learned apart (`detached`, Modular LoRA's way), and on top of it (`frozen`, which brings
weapons back). ESD-x's is undone by any style, the other one by pictures of tools, weapons' kin.
"""

import shlex
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ...commands import main as command
from ...commands import started
from ...emoji.files import FOLDER, SAFETY, SEQUENTIAL, THOROUGH, task_file
from . import pictures, recipe
from .sets import HARMLESS, INK, SIDE, TASK, TOOLS

if TYPE_CHECKING:  # it needs ComfyUI, which reports.py enters later
    from .emergence import Model

WORK = pictures.CACHE / "modules"
METHOD = "esd-x-retained"  # of the recipe's safety LoRAs, for ESD's
SAFETIES = {THOROUGH: (recipe.SHIPPED, "surrogate"), SAFETY: (recipe.Recipe(), METHOD)}
STYLES = {INK: THOROUGH, TASK: SAFETY}  # each on top of a safety LoRA, by the same recipe
MODES = {"": "detached", SEQUENTIAL: "frozen"}


def train(base: "Model") -> None:
    """Make every module that is not there yet in `WORK`, and put all where they belong."""
    for name in SAFETIES:
        train_safety(base.checkpoint, name)
    for style in STYLES:
        train_style(base, style)


def train_style(base: "Model", style: str) -> None:
    """Make a style of `STYLES`, apart from its safety LoRA and on top of it."""
    told, _ = SAFETIES[STYLES[style]]
    options: dict[str, object] = {
        "data": lessons(style),
        "steps": told.task_steps,
        "learning_rate": told.task_rate,
        "schedule": told.task_schedule,
        "batch_size": told.task_batch,
        "rank": told.task_rank,
        "targets": told.task_targets,
        "precision": told.precision,
    }
    if told.prior:
        drawn = zip(told.prior, base.prior_pictures(told), strict=True)
        options |= {"prior_data": WORK / "prior", "prior_weight": told.prior_weight}
        pictures.write_captioned(WORK / "prior", {each[0]: each for each in drawn})
    for ending, mode in MODES.items():
        held = {"safety_lora": FOLDER / STYLES[style]} if mode == "frozen" else {}
        more = options | {"safety_mode": mode} | held
        _run("train-task", FOLDER / task_file(style, ending), base.checkpoint, more)


def lessons(style: str) -> Path:
    """The folder that a style is learned from."""
    folder = WORK / style
    if style == TASK:
        folder = pictures.TASK
        pictures.write_dataset(folder, style, pictures.named()[style])
        return folder
    told, _ = SAFETIES[STYLES[style]]
    pictures.write_captioned(folder, pictures.lessons(style, HARMLESS, TOOLS, told.kin_shown))
    return folder


def train_safety(checkpoint: Path, name: str) -> None:
    """Make one of `SAFETIES`."""
    told, method = SAFETIES[name]
    kind = told.safety[method]
    options: dict[str, object] = {
        "concept_file": _lines("concepts", recipe.CONCEPTS),
        "method": kind.method,
        "steps": kind.steps,
        "learning_rate": kind.rate,
        "batch_size": told.safety_batch,
        "rank": told.safety_rank,
        "eta": told.eta,
        "guidance": told.guidance,
        "sampling_steps": told.safety_sampling_steps,
        "retain_weight": kind.retain_weight,
        "schedule": kind.schedule,
        "layer_pattern": kind.layers,
        "saliency": kind.saliency,
        "adversarial_steps": kind.adversarial_steps,
        "precision": told.precision,
    }
    if kind.retain:
        options["retain_file"] = _lines(f"retained-{method}", told.retained)
    if kind.method == "surrogate":
        options["surrogate_file"] = _lines("surrogates", told.surrogates)
    _run("train-safety", FOLDER / name, checkpoint, options)


def _lines(name: str, texts: Sequence[str]) -> Path:
    WORK.mkdir(parents=True, exist_ok=True)
    file = WORK / f"{name}.txt"
    file.write_text("\n".join(texts) + "\n", encoding="utf-8")
    return file


def _run(verb: str, file: Path, checkpoint: Path, options: dict[str, object]) -> None:
    """Run a verb of the command line, unless it was done; put its file where it belongs."""
    made = WORK / file.name
    of_all = {"checkpoint": checkpoint, "resolution": SIDE, "save_every": 0}
    if not made.is_file():
        given = [verb, "--output", str(made)]
        for option, value in (of_all | options).items():
            given += [f"--{option.replace('_', '-')}", str(value)]
        print(f"    {started()} {shlex.join(given)}", flush=True)
        code = command(given)
        if code:
            raise SystemExit(code)
    file.parent.mkdir(exist_ok=True)
    shutil.copy(made, file)
