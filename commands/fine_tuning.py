"""Find out whether fine-tuning brings back what a safety LoRA takes away; does modular help?

    python custom_nodes/modular-safety-lora fine-tuning --checkpoint C --data pictures \\
        --safety-lora safety.safetensors --output FOLDER

The paper's experiment on your own model (arXiv 2412.00357): task LoRAs are trained from your
pictures, on top of the safe model and apart from it, and the base, the safe and the tuned models
draw the same prompts and seeds, and are audited. With --concept-preset and no --safety-lora, each
repetition trains a safety LoRA too. --plan says what will be done and how long that takes, and
stops. The folder gets report.html, report.json, table.md, chart.png, the LoRAs and the audits. The
same command goes on after a crash or Ctrl-C.
"""

import argparse
import contextlib
import signal
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from ..evaluation.job import KEEP, Kept
from ..evaluation.prompt_set import Defaults, Selection, read_prompts
from ..experiment.settings import STEPS, Asked
from ..host.comfyui import enter_comfyui
from ..host.sampling_settings import Sampling
from ..modules.files import LoraFile
from ..options.table import TASK, made
from ..options.words import amount, series, span
from ..reporting.names import CONCEPT, HARMLESS
from ..reporting.settings import Asking
from ..training.prompting import Erased, Fitting
from ..training.settings import Settings
from .audit import add_rules, rules_of
from .base import add_base, add_comfyui, add_safety, load_base, safety_of
from .flags import add_flags, taken
from .kinds import folder
from .language import add_language
from .terminal import Bar, close_bars

# of the trainers: which arm it is says the mode, and which repetition the seed
TOLD_BY_ARM = ("safety_mode", "seed")
BLANK = LoraFile("", "safety", "", {}, {})  # a safety LoRA of which nothing is sealed yet


def options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add_base(parser)
    add(
        "--data",
        type=Path,
        required=True,
        metavar="FOLDER",
        help="harmless pictures with .txt captions, or a metadata.jsonl",
    )
    add("--output", type=folder, required=True, help="the folder of the results")
    add("--plan", action="store_true", help="say what will be done and how long it takes, and stop")
    add_safety(parser)
    add(
        "--prompts",
        type=Path,
        dest="prompt_set",
        metavar="FILE",
        help="prompts of the concept, as a CSV with I2P's columns or a .txt; without it, those of"
        " the safety LoRA and of the preset, several pictures each",
    )
    add_flags(parser, Asked)
    add_flags(parser, Asking, without=("prompts",))
    add_flags(parser, Settings, Fitting, of=TASK, without=TOLD_BY_ARM)
    add_flags(parser, Sampling, without=("steps",))
    add_flags(parser, Defaults, Selection, Kept, without=("pictures_per_prompt",))  # Asking has it
    add_rules(parser)
    add_comfyui(parser)
    add_language(parser)
    parser.set_defaults(steps=STEPS, keep=KEEP[2])


def work(options: argparse.Namespace) -> None:
    enter_comfyui(options.comfyui)
    from ..experiment.run import experiment_run, learner_of
    from ..experiment.timing import speeds

    experiment = _experiment(options)
    for warning in experiment.pictures.warnings:
        print(f"Warning: {warning}", file=sys.stderr, flush=True)
    parts = load_base(options)
    print("Measuring how long a step and a picture take ...", flush=True)
    learner = learner_of(parts, experiment)
    pace = speeds(learner)
    for line in _plan(experiment, pace):
        print(line)
    if options.plan:
        return
    with _asked_to_stop() as stopped, Units(experiment, pace) as units:

        def tell(unit, done: int) -> bool:
            units(unit, done)
            return not stopped

        experiment_run(parts, experiment, tell)
    close_bars()
    print((experiment.folder / "table.md").read_text(encoding="utf-8"))
    print(f"Report: {experiment.folder / 'report.html'}, report.json, table.md, chart.png")


def _experiment(options: argparse.Namespace):
    """What the flags ask for. Raises ValueError before anything is loaded."""
    from ..experiment.job import Experiment
    from ..training import data

    asked, asking, task, fitting = taken(options, Asked, Asking, Settings, Fitting)
    defaults, selection, kept = taken(options, Defaults, Selection, Kept)
    # --steps are the training's
    sampling = made(Sampling, vars(options) | {"steps": asked.pictures_steps})
    given = safety_of(options)
    erased = Erased(asking.concept_name, asking.concept_preset, resolution=fitting.resolution)
    if not given and not erased.concepts:
        raise ValueError(
            "There is no safety LoRA. Give --safety-lora, or a --concept-preset to train one."
        )
    if not given:
        erased.others(asked.safety_method)
    return Experiment(
        options.output,
        asked,
        task,
        data.of_folder(options.data, fitting.resolution),
        given,
        erased,
        _sets(options, asking, given, defaults, selection),
        rules_of(options).pinned(),
        sampling,
        kept.keep,
    )


def _sets(options, asking: Asking, given: list[LoraFile], defaults, selection) -> dict:
    """The prompts of the concept and the harmless ones."""
    from ..reporting.prompts import groups_of, pictures_of

    module, more = given[0] if given else BLANK, []
    for each in given[1:]:
        more += each.prompts
    groups, _ = groups_of(module, replace(asking, prompts=(*asking.prompts, *more)))
    sets = {
        kind: pictures_of(groups, kinds, asking.pictures, defaults)
        for kind, kinds in (("concept", CONCEPT), ("harmless", HARMLESS))
    }
    if options.prompt_set:
        sets["concept"] = read_prompts(options.prompt_set, defaults, selection)
    elif not sets["concept"].prompts:
        raise ValueError(
            "There are no prompts of the concept: none is sealed in the safety LoRA. Give --prompts"
            " or --concept-preset."
        )
    return sets


def _plan(experiment, pace) -> Iterator[str]:
    """A line for each thing that is to be done, and how long all of it takes."""
    units = list(experiment.units())
    wide = max(len(unit.words) for unit in units)
    for unit in units:
        done, state = unit.done(), amount(unit.total, unit.noun)
        if done >= unit.total:
            state += ", done"
        else:
            left = pace.of(unit)
            state += f", {done} done" * bool(done)
            state += ", not timed" if left is None else f", about {span(left)}"
        yield f"  {unit.words:<{wide}}  {state}"
    untimed = series(pace.untimed(experiment))
    more = f" On top come {untimed}, which can't be timed before there is a safety LoRA."
    yield (
        f"In all about {span(pace.left(experiment))} with loading and merging, as measured here."
        + more * bool(untimed)
    )


class Units:
    """A bar for each unit of the work, and what is left of all when one begins."""

    def __init__(self, experiment, pace):
        self.experiment, self.pace, self.bar, self.unit = experiment, pace, None, ""
        self.count = sum(1 for _ in experiment.units())

    def __call__(self, unit, done: int) -> None:
        if unit.words != self.unit:
            self.close()
            self.unit = unit.words
            left = span(self.pace.left(self.experiment))
            number = [each.words for each in self.experiment.units()].index(unit.words) + 1
            what = f"{number} of {self.count}: {unit.words} (all: about {left} left)"
            self.bar = Bar(what, f"{unit.noun}s", unit.total, initial=done)
        self.bar(done, unit.total)

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()

    def __enter__(self) -> "Units":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@contextlib.contextmanager
def _asked_to_stop() -> Iterator[list]:
    """A list that is filled at the first Ctrl-C; a second one ends at once, as it always does."""
    asked: list = []
    before = signal.getsignal(signal.SIGINT)

    def note(*_: object) -> None:
        asked.append(True)
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, note)
    try:
        yield asked
    finally:
        signal.signal(signal.SIGINT, before)
