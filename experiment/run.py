"""The experiment: train what is missing, audit every arm, write what came of it."""

from collections.abc import Callable
from typing import Any

import comfy.model_management
from comfy.model_patcher import ModelPatcher
from comfy.sd import VAE

from ..host.comfy_types import Clip
from ..host.lending import check_unpatched
from ..storage.owned import owned
from ..training.engine.checkpoint import Progress
from .drawing import draw
from .job import Audit, Experiment, Training
from .learning import Learner, Stopped, is_whole
from .reading import found
from .results import write_results

Unit = Training | Audit
# is told how much of a unit is done, and says whether to go on
Tell = Callable[[Unit, int], bool]


def learner_of(
    parts: tuple[ModelPatcher, Clip, VAE], experiment: Experiment, tell: Tell = lambda *_: True
) -> Learner:
    """What trains on a base, which has no LoRA on it yet.

    Raises ExperimentError for a finished LoRA in the folder that is another experiment's.
    """

    def on_step(training: Training, progress: Progress) -> bool:
        return tell(training, progress.step)

    check_unpatched(parts[0])
    learner = Learner(parts, experiment, on_step)
    for unit in experiment.units():
        if isinstance(unit, Training) and is_whole(unit):
            learner.checked(unit)
        elif isinstance(unit, Audit):
            unit.job.check()
    return learner


def experiment_run(
    parts: tuple[ModelPatcher, Clip, VAE], experiment: Experiment, tell: Tell = lambda *_: True
) -> dict[str, Any]:
    """Train what is missing, audit every arm, and write the results; the report as a dict.

    It goes on from whatever an earlier run left in the folder, however that ended. Results are
    written after each repetition, and when it is stopped: what is missing is said in them.
    """
    with owned(experiment.folder / "report"):
        learner = learner_of(parts, experiment, tell)

        def on_picture(audit: Audit, done: int) -> None:
            if not tell(audit, done):
                raise Stopped

        try:
            for seed in experiment.seeds:
                for arm in experiment.arms:
                    there = found(learner, arm, seed)
                    if there.missing or there.not_made:
                        draw(learner, arm, seed, on_picture)
                        comfy.model_management.soft_empty_cache()
                report = write_results(learner)
        except KeyboardInterrupt:
            write_results(learner)
            raise
        return report
