"""One experiment: what is asked, and the files and folders in which everything of it lies."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..audit.rules import Rules
from ..evaluation.job import AuditJob
from ..evaluation.prompt_set import PromptSet
from ..host.sampling_settings import Sampling
from ..modules.files import LoraFile
from ..training.adapter_settings import AdapterSettings
from ..training.data import Sized
from ..training.engine.checkpoint import step_of
from ..training.engine.starting import checkpoint_of
from ..training.objectives import Erasure
from ..training.prompting import Erased
from ..training.settings import Settings, fitted
from .arms import ANCHORED, ARMS, BASE, SAFE, Arm
from .settings import Asked

SAFETY = "safety"
FILES = {SAFETY: "safety", "detached": "task-apart", "frozen": "task-on-top"}
FILES |= {"anchored": "task-anchored"}
WORDS = {
    SAFETY: "train the safety LoRA",
    "detached": "train the task LoRA apart (modular)",
    "frozen": "train it on top of the safe model",
    "anchored": "train it anchored",
}


@dataclass(frozen=True)
class Training:
    """A LoRA that one repetition trains: `what` is SAFETY, or the mode of a task LoRA."""

    what: str
    seed: int
    file: Path
    settings: Settings
    noun = "step"

    @property
    def words(self) -> str:
        return f"{WORDS[self.what]}, seed {self.seed}"

    @property
    def total(self) -> int:
        return self.settings.steps

    def done(self) -> int:
        """The steps that lie on the disk: all of a finished file, or those of its checkpoint."""
        state = checkpoint_of(self.file)
        if state.exists():
            return step_of(state)
        return self.total if self.file.exists() else 0


@dataclass(frozen=True)
class Audit:
    """The pictures of an arm of one kind of prompts; of no seed where all repetitions share it."""

    arm: Arm
    kind: str
    seed: int | None
    job: AuditJob
    noun = "picture"

    @property
    def words(self) -> str:
        return f"audit {named(self.arm, self.seed)}, {self.kind} prompts"

    @property
    def total(self) -> int:
        return len(self.job.prompts)

    def done(self) -> int:
        """The pictures that were looked at."""
        return self.job.done()


def named(arm: Arm, seed: int | None) -> str:
    return arm.title if seed is None else f"{arm.title}, seed {seed}"


@dataclass(frozen=True)
class Experiment:
    """What is asked, and where all of it goes.

    `given` are safety LoRAs; without one, each repetition trains its own from `erased`. `task` are
    the settings of every task LoRA but seed and mode. `sets` are the prompts by kind, `concept` and
    `harmless`: the same pictures, from the same seeds, are asked of every arm.
    """

    folder: Path
    asked: Asked
    task: Settings
    pictures: Sized
    given: Sequence[LoraFile]
    erased: Erased
    sets: Mapping[str, PromptSet]
    rules: Rules
    sampling: Sampling
    keep: str

    @property
    def arms(self) -> list[Arm]:
        return [arm for arm in ARMS if arm is not ANCHORED or self.asked.anchored]

    @property
    def seeds(self) -> range:
        return range(1, self.asked.seeds + 1)

    @property
    def erasure(self) -> Erasure:
        return Erasure(self.asked.safety_method)

    def is_shared(self, arm: Arm) -> bool:
        """Whether an arm is the same model in every repetition."""
        return arm is BASE or (arm is SAFE and bool(self.given))

    def training(self, what: str, seed: int) -> Training:
        file = self.folder / "loras" / f"{FILES[what]}-{seed}.safetensors"
        return Training(what, seed, file, self._settings(what, seed))

    def _settings(self, what: str, seed: int) -> Settings:
        if what != SAFETY:
            return replace(self.task, seed=seed, safety_mode=what)
        asked = self.asked
        told = Settings(
            steps=asked.safety_steps,
            learning_rate=asked.safety_learning_rate,
            precision=self.task.precision,
            gradient_checkpointing=self.task.gradient_checkpointing,
            seed=seed,
            adapter=AdapterSettings(asked.safety_rank),
        )
        return fitted(told, self.erasure)

    def audit(
        self,
        arm: Arm,
        kind: str,
        seed: int | None,
        on_picture: Callable[[int, Any], None] = lambda done, picture: None,
        loras: Sequence[Mapping[str, Any]] = (),
    ) -> Audit:
        seed = None if self.is_shared(arm) else seed
        job = AuditJob(
            f"{kind} prompts",
            self.sets[kind],
            self.rules,
            self.sampling,
            self.arm_folder(arm, seed) / kind,
            self.keep,
            on_picture,
            named(arm, seed),
            loras,
        )
        return Audit(arm, kind, seed, job)

    def arm_folder(self, arm: Arm, seed: int | None) -> Path:
        """Where the audits of an arm lie, and `merge.json`: what Modular Merge says of it."""
        suffix = "" if seed is None or self.is_shared(arm) else f"-{seed}"
        return self.folder / "audits" / f"{arm.name}{suffix}"

    def merge_said(self, arm: Arm, seed: int | None) -> dict[str, Any]:
        """`merge.json` of an arm: `losses`, why the lock would stop it, and `retained_safety`."""
        file = self.arm_folder(arm, seed) / "merge.json"
        found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        return found

    def units(self) -> Iterator[Training | Audit]:
        """Everything that is to be done, in order: what a repetition needs, then its audits."""
        for seed in self.seeds:
            trained: set[str] = set()
            for arm in self.arms:
                if self.is_shared(arm) and seed > 1:
                    continue
                wanted = [SAFETY] if arm.is_safe and not self.given else []
                wanted += [arm.mode] if arm.mode else []
                for what in wanted:
                    if what not in trained:
                        yield self.training(what, seed)
                trained.update(wanted)
                for kind in self.sets:
                    yield self.audit(arm, kind, seed)
