"""The modules of this world, each made by one command of the pack's own trainers.

A safety LoRA takes weapons away and draws a sunflower in their place; another one, by ESD-x, is
weaker. Two styles are learned apart (`detached`, Modular LoRA's way), and on top of ESD-x's
(`frozen`, which brings weapons back).
"""

import shlex
import shutil
from collections.abc import Sequence
from pathlib import Path

from ...commands import main as command
from ...commands import started
from ...emoji.files import FOLDER, SAFETY, SEQUENTIAL, THOROUGH, task_file
from . import pictures, recipe
from .sets import SIDE, TASK

WORK = pictures.CACHE / "modules"
METHOD = "esd-x-retained"  # of the recipe's safety LoRAs, for ESD's
SAFETIES = {THOROUGH: (recipe.SURROGATE, "surrogate"), SAFETY: (recipe.Recipe(), METHOD)}
STYLES = (TASK, "ink")
MODES = {"": "detached", SEQUENTIAL: "frozen"}
MEASURED = Path(__file__).parent / "modules"  # what does not ship


def place(style: str, ending: str = "") -> Path:
    """Where the file of a style lies: with what ships, if the demo needs it."""
    shipped = style == TASK or not ending
    return (FOLDER if shipped else MEASURED) / task_file(style, ending)


def train(checkpoint: Path) -> None:
    """Make every module that is not there yet in `WORK`, and put all where they belong."""
    for name in SAFETIES:
        train_safety(checkpoint, name)
    told = recipe.Recipe()
    of_task = {
        "steps": told.task_steps,
        "learning_rate": told.task_rate,
        "batch_size": told.task_batch,
        "rank": told.task_rank,
        "targets": told.task_targets,
    }
    named = pictures.named()
    for style in STYLES:
        data = pictures.TASK if style == TASK else WORK / style
        pictures.write_dataset(data, style, named[style])
        for ending, mode in MODES.items():
            held = {"safety_lora": FOLDER / SAFETY} if mode == "frozen" else {}
            more = {"data": data, "safety_mode": mode} | held
            _run("train-task", place(style, ending), checkpoint, of_task | more)


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
