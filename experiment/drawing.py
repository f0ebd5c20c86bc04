"""The pictures of each arm, by Audit Prompt Set's own run, in a folder for each."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from comfy.model_patcher import ModelPatcher

from ..evaluation.run import run
from ..host.comfy_types import Clip
from ..merge.entries import Task
from ..merge.merge import merge
from ..modules.files import LoraFile
from ..reporting.models import stock
from ..storage.whole import write_text
from .arms import SEQUENTIAL, Arm
from .job import Audit
from .learning import Learner

OnPicture = Callable[[Audit, int], None]


@dataclass(frozen=True)
class Loaded:
    """The MODEL and CLIP of an arm, the LoRAs on them for reports, and what Modular Merge says."""

    model: ModelPatcher
    clip: Clip
    loras: Sequence[Mapping[str, Any]]
    merge: Mapping[str, Any] | None


def loras_of(learner: Learner, arm: Arm, seed: int) -> tuple[list[LoraFile], list[LoraFile]]:
    """The safety and the task LoRAs of an arm."""
    safety = learner.safety(seed) if arm.is_safe else []
    return safety, [learner.task(arm.mode, seed)] if arm.mode else []


def loaded(learner: Learner, arm: Arm, seed: int) -> Loaded:
    """The model of an arm.

    With its safety LoRA it is Modular Merge's, locked. What was fine-tuned after safety is put on
    as ComfyUI's own loaders do, the stock way, and so is what the lock would stop, so that it can
    be looked at; `merge` has the reasons.
    """
    base = learner.model, learner.clip
    safety, modules = loras_of(learner, arm, seed)
    tasks = [Task(each) for each in modules]
    if not safety:
        return Loaded(*stock(base, (), tasks), _named(modules), None)
    merged = merge(learner.model, safety, tasks, learner.clip)
    said = {name: merged.report[name] for name in ("losses", "retained_safety")}
    if arm is SEQUENTIAL or said["losses"]:
        return Loaded(*stock(base, safety, tasks), _named([*safety, *modules]), said)
    return Loaded(merged.model, merged.clip or learner.clip, (), said)


def draw(learner: Learner, arm: Arm, seed: int, on_picture: OnPicture) -> None:
    """Make and audit what is missing of an arm, by kind of prompt."""
    experiment = learner.experiment
    model = loaded(learner, arm, seed)
    if model.merge is not None:
        file = experiment.arm_folder(arm, seed) / "merge.json"
        write_text(file, json.dumps(model.merge, indent=1))
    for kind in experiment.sets:

        def tell(done: int, _: object, kind: str = kind) -> None:
            on_picture(experiment.audit(arm, kind, seed), done)

        unit = experiment.audit(arm, kind, seed, tell, model.loras)
        run(model.model, model.clip, learner.vae, unit.job)


def _named(modules: Sequence[LoraFile]) -> list[dict[str, Any]]:
    return [
        {
            "name": each.name,
            "role": each.role,
            "sha256": each.sha256,
            "strength": each.sealed_strength if each.role == "safety" else 1.0,
        }
        for each in modules
    ]
