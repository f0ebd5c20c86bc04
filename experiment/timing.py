"""How long an experiment takes: the first steps and pictures of it, measured on this machine."""

import json
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ..evaluation.run import run
from ..storage.whole import write_text
from ..training.engine.checkpoint import Progress
from .job import SAFETY, Audit, Experiment, Training
from .learning import Learner

FILE, STEPS, PICTURES = "timing.json", 4, 3
PICTURE = "picture"
LIKE = {"frozen": "detached"}  # the safety LoRA is in the weights: a step takes as long


@dataclass(frozen=True)
class Speeds:
    """Seconds of a training step by what is trained, and of a picture (`PICTURE`)."""

    seconds: Mapping[str, float]

    def knows(self, experiment: Experiment) -> bool:
        """Whether everything that is not done was timed."""
        return all(self.of(unit) is not None for unit in experiment.units())

    def left(self, experiment: Experiment) -> float:
        """Seconds of all that is not done, as far as it was timed."""
        return sum(self.of(unit) or 0.0 for unit in experiment.units())

    def of(self, unit: Training | Audit) -> float | None:
        """Seconds of what of one unit is not done; None where that was not timed."""
        left = max(0, unit.total - unit.done())
        what = unit.what if isinstance(unit, Training) else PICTURE
        each = self.seconds.get(LIKE.get(what, what))
        return 0.0 if not left else None if each is None else each * left


def speeds(learner: Learner) -> Speeds:
    """The measured speeds of this experiment; measured once, and kept in its folder.

    A few steps of each kind of training are taken, and a few pictures made with the base, in a
    folder of their own that is removed. What comes first is slow and is left out. More steps,
    pictures or repetitions are none of it; with any other setting it is measured again.
    """
    experiment = learner.experiment
    file, of = experiment.folder / FILE, _asked(learner)
    known = _kept(file, of)
    wanted = {unit.what for unit in experiment.units() if isinstance(unit, Training)}
    wanted -= set() if experiment.given else {"anchored"}  # it needs a safety LoRA that works
    # a safety LoRA comes first: the others are trained beside it
    kinds = sorted(wanted - LIKE.keys(), key=lambda what: (what != SAFETY, what))
    missing = [what for what in (*kinds, PICTURE) if what not in known]
    if missing:
        with tempfile.TemporaryDirectory() as place:
            small = _small(experiment, Path(place))
            known |= {what: _measured(learner, small, what) for what in missing}
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


def _measured(learner: Learner, small: Experiment, what: str) -> float:
    times: list[float] = []

    def on_step(_: Training, progress: Progress) -> bool:
        times.append(time.monotonic())
        return True

    timed = Learner((learner.model, learner.clip, learner.vae), small, on_step)
    if what == PICTURE:
        job = next(unit for unit in small.units() if isinstance(unit, Audit)).job
        at = replace(job, on_picture=lambda *_: times.append(time.monotonic()))
        run(learner.model, learner.clip, learner.vae, at)
    elif what == SAFETY:
        timed.safety(1)
    else:
        timed.dataset = learner.dataset  # encoded once
        timed.task(what, 1)
    # both are told of before they begin
    counted = times[1:] if len(times) > 2 else times
    return (counted[-1] - counted[0]) / (len(counted) - 1)
