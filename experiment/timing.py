"""How long an experiment takes: the first steps and pictures of it, measured on this machine."""

import json
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ..evaluation.run import run
from ..merge.entries import Task
from ..merge.merge import merge
from ..storage.whole import write_text
from ..training.engine.checkpoint import Progress
from .job import SAFETY, Audit, Experiment, Training
from .learning import Learner
from .words import CONCEPT

FILE, STEPS, PICTURES = "timing.json", 4, 3
PICTURE = "picture"
LIKE = {"frozen": "detached"}  # the safety LoRA is in the weights: a step takes as long
# a model's loading, a LoRA's writing, a detector, a page: whatever one unit takes beside its steps
AROUND = "around "
MERGE, ENCODED = "merge", "pictures encoded"


@dataclass(frozen=True)
class Speeds:
    """Seconds of a training step by what is trained, and of a picture (`PICTURE`).

    Under `AROUND` each, of all else that one of them takes; of a merge; of encoding the pictures.
    """

    seconds: Mapping[str, float]

    def untimed(self, experiment: Experiment) -> list[str]:
        """What is not done and was not timed, as there is no safety LoRA yet."""
        left = [unit for unit in experiment.units() if unit.done() < unit.total]
        merges = any(isinstance(unit, Audit) and unit.arm.is_safe for unit in left)
        found = ["merges"] if merges and MERGE not in self.seconds else []
        return found + ["anchored trainings"] * any(self.of(unit) is None for unit in left)

    def left(self, experiment: Experiment) -> float:
        """Seconds of all that is not done, as far as it was timed."""
        units = list(experiment.units())
        trains = any(isinstance(unit, Training) and unit.done() < unit.total for unit in units)
        encoding = self.seconds.get(ENCODED, 0.0) if trains else 0.0
        return encoding + sum(self.of(unit) or 0.0 for unit in units)

    def of(self, unit: Training | Audit) -> float | None:
        """Seconds of what of one unit is not done; None where that was not timed."""
        left = max(0, unit.total - unit.done())
        what = unit.what if isinstance(unit, Training) else PICTURE
        what = LIKE.get(what, what)
        if not left or what not in self.seconds:
            return None if left else 0.0
        # an arm is merged once, for its first kind of prompts
        merged = isinstance(unit, Audit) and unit.arm.is_safe and unit.kind == CONCEPT
        more = self.seconds.get(AROUND + what, 0.0) + merged * self.seconds.get(MERGE, 0.0)
        return self.seconds[what] * left + more


def speeds(learner: Learner) -> Speeds:
    """The measured speeds of this experiment; measured once, and kept in its folder.

    A few steps of each kind of training are taken, LoRAs merged, and a few pictures made with the
    base, in a folder of their own that is removed. What comes first is slow and is left out. More
    steps, pictures or repetitions are none of it; with any other setting it is measured again.
    """
    experiment = learner.experiment
    file, of = experiment.folder / FILE, _asked(learner)
    known = _kept(file, of)
    wanted = {unit.what for unit in experiment.units() if isinstance(unit, Training)}
    wanted -= set() if experiment.given else {"anchored"}  # it needs a safety LoRA that works
    # a safety LoRA comes first: the others are trained beside it
    kinds = sorted(wanted - LIKE.keys(), key=lambda what: (what != SAFETY, what))
    merges = [MERGE] if experiment.given else []
    missing = [what for what in (*kinds, *merges, PICTURE) if what not in known]
    if missing:
        with tempfile.TemporaryDirectory() as place:
            small = _small(experiment, Path(place))
            for what in missing:
                known |= _measured(learner, small, what)
        write_text(file, json.dumps({"of": of, "seconds": known}, indent=1))
    return Speeds(known)


def _asked(learner: Learner) -> dict[str, Any]:
    """All that speeds depend on, as JSON has it."""
    small = _small(learner.experiment, Path())
    asked = {
        "base": learner.base_sha256,
        "asked": asdict(small.asked),
        "task": asdict(small.task),
        "sizes": small.pictures.sizes,
        "prompts": {kind: [*map(repr, prompts)] for kind, prompts in small.sets.items()},
        "rules": small.rules.identity(),
        "sampling": asdict(small.sampling),
    }
    found: dict[str, Any] = json.loads(json.dumps(asked))
    return found


def _kept(file: Path, of: Mapping[str, Any]) -> dict[str, float]:
    """What was measured of the same before; nothing where that can't be read."""
    try:
        told = json.loads(file.read_text(encoding="utf-8"))
        return dict(told["seconds"]) if told["of"] == of else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _small(experiment: Experiment, folder: Path) -> Experiment:
    """The same experiment with so few steps and pictures that it can be timed."""
    asked = replace(experiment.asked, safety_steps=STEPS, save_every=0, seeds=1)
    sets = {
        kind: replace(prompts, prompts=prompts.prompts[:PICTURES])
        for kind, prompts in experiment.sets.items()
    }
    task = replace(experiment.task, steps=STEPS)
    return replace(experiment, folder=folder, asked=asked, task=task, sets=sets)


def _merged(learner: Learner, small: Experiment) -> dict[str, float]:
    """Seconds of a merge with a task LoRA; one without comes first, as that is slow."""
    timed = Learner((learner.model, learner.clip, learner.vae), small, lambda *_: True)
    timed.dataset = learner.dataset
    task = Task(timed.task("detached", 1))
    for tasks in ((), (task,)):
        start = time.monotonic()
        merge(learner.model, small.given, tasks, learner.clip)
    return {MERGE: time.monotonic() - start}


def _measured(learner: Learner, small: Experiment, what: str) -> dict[str, float]:
    """Seconds of a step or picture, of all around some of them, and of encoding the pictures."""
    if what == MERGE:
        return _merged(learner, small)
    times: list[float] = []
    found: dict[str, float] = {}

    def on_step(_: Training, progress: Progress) -> bool:
        times.append(time.monotonic())
        return True

    timed = Learner((learner.model, learner.clip, learner.vae), small, on_step)
    start = time.monotonic()
    if what not in (PICTURE, SAFETY):
        is_new = "dataset" not in vars(learner)  # encoded once
        timed.dataset = learner.dataset
        found = {ENCODED: time.monotonic() - start} if is_new else {}
        start = time.monotonic()
        timed.task(what, 1)
    elif what == SAFETY:
        timed.safety(1)
    else:
        job = next(unit for unit in small.units() if isinstance(unit, Audit)).job
        at = replace(job, on_picture=lambda *_: times.append(time.monotonic()))
        run(learner.model, learner.clip, learner.vae, at)
    whole = time.monotonic() - start
    # both are told of before they begin
    counted = times[1:] if len(times) > 2 else times
    each = (counted[-1] - counted[0]) / (len(counted) - 1)
    around = max(0.0, whole - each * (len(times) - 1))
    return found | {what: each, AROUND + what: around}
