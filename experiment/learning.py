"""The LoRAs of the experiment: trained by the pack's own trainers where they are missing."""

import json
from collections.abc import Callable, Sequence
from functools import cached_property, partial
from typing import Any

import torch
from comfy.model_patcher import ModelPatcher
from comfy.sd import VAE

from ..host.bases import origin
from ..host.comfy_types import Clip
from ..host.prompts import concepts_of, encode_texts
from ..host.weights import base_name, file_of
from ..modules.files import LoraFile, load_safety, load_task
from ..options.errors import PackError
from ..storage.differing import changes
from ..storage.whole import write_picture, write_text
from ..training import data
from ..training.engine.checkpoint import Progress
from ..training.engine.job import Result, TrainingJob
from ..training.engine.starting import checkpoint_of
from ..training.safety import train_safety
from ..training.task import train_task
from .job import SAFETY, Experiment, Training

# is asked after each step whether to go on
OnStep = Callable[[Training, Progress], bool]


class ExperimentError(PackError, ValueError):
    """Something in the folder is not of this experiment; the message names it and the way out."""


class Stopped(KeyboardInterrupt):
    """Somebody stopped the experiment; what was done is kept."""


class Learner:
    """Trains what is missing on one base, and reads what is there.

    What is there must be of this experiment: its settings, pictures, base and safety LoRA. Raises
    ExperimentError for anything else, Stopped for a training that was stopped.
    """

    def __init__(
        self, parts: tuple[ModelPatcher, Clip, VAE], experiment: Experiment, on_step: OnStep
    ):
        self.model, self.clip, self.vae = parts
        self.experiment, self.on_step = experiment, on_step
        path = file_of(self.model)
        self.base_name = path.name if path else base_name(self.model)
        self.base_sha256 = origin(self.model).sha256

    @cached_property
    def dataset(self) -> data.Dataset:
        """The pictures, encoded once for all trainings."""
        with torch.no_grad():
            encode = partial(encode_texts, self.clip)
            return data.load(self.experiment.pictures, self.vae.encode, encode)

    def safety(self, seed: int) -> list[LoraFile]:
        """The safety LoRAs of a repetition."""
        if self.experiment.given:
            return list(self.experiment.given)
        training = self.experiment.training(SAFETY, seed)
        if not is_whole(training):
            self._keep(training, self._train_safety(training))
        return [self.checked(training)]

    def task(self, mode: str, seed: int) -> LoraFile:
        """The task LoRA of a repetition, trained in a mode."""
        training, safety = self.experiment.training(mode, seed), self.safety(seed)
        if not is_whole(training):
            self._keep(training, self.train_task(training, safety))
        return self.checked(training)

    def train_task(self, training: Training, safety: Sequence[LoraFile]) -> Result | None:
        """Train a task LoRA, whatever is there."""
        held = list(safety) if training.what != "detached" else []
        concepts = concepts_of(held) if training.what == "anchored" else []
        texts = encode_texts(self.clip, concepts)
        how = self.model, self.dataset, texts, training.settings, self._job(training)
        return train_task(*how, safety=held, concepts=concepts)

    def _train_safety(self, training: Training) -> Result | None:
        erased, erasure = self.experiment.erased, self.experiment.erasure
        others = erased.others(erasure.method)
        texts = encode_texts(self.clip, erased.texts)
        how = self.model, texts, erased.concepts, training.settings, self._job(training)
        return train_safety(*how, erasure=erasure, retain=erased.retained(texts), **others)

    def _job(self, training: Training) -> TrainingJob:
        return TrainingJob(
            training.file,
            self.experiment.asked.save_every,
            resume=True,
            on_step=partial(self.on_step, training),
        )

    def _keep(self, training: Training, result: Result | None) -> None:
        """Chart and report beside the file; a training that was stopped stops all."""
        if result is None or result.progress.cancelled:
            raise Stopped
        write_picture(training.file.with_suffix(".png"), result.plot)
        write_text(training.file.with_suffix(".json"), json.dumps(result.report, indent=1))

    def checked(self, training: Training) -> LoraFile:
        """A finished LoRA of this experiment. Raises ExperimentError for another one."""
        load = load_safety if training.what == SAFETY else load_task
        module = load(training.file, training.file.name)
        was, now = _told(module), self._wanted(training)
        for what, one, two in changes({key: was.get(key) for key in now}, now):
            raise ExperimentError(
                f"{training.file}: it was trained with another {what} ({one}; now {two}). Choose"
                " another folder for the results, or delete this file and the audits of its arms."
            )
        return module

    def _wanted(self, training: Training) -> dict[str, Any]:
        """What the file of a training says of itself."""
        record = json.loads(training.settings.record())
        record.pop("versions")
        base = {"base": self.base_sha256} if self.base_sha256 else {}
        if training.what == SAFETY:
            erased = self.experiment.erased
            told = {"concepts": erased.concepts, "resolution": erased.resolution}
            return record | base | told | {"method": self.experiment.asked.safety_method}
        held = self.safety(training.seed) if training.what != "detached" else []
        return (
            record
            | base
            | {
                "pictures": self.experiment.pictures.sha256,
                "safety_mode": training.what,
                "safety LoRA": ",".join(sorted(each.sha256 for each in held)),
            }
        )


def is_whole(training: Training) -> bool:
    """Whether a training is finished: a run that was stopped leaves its checkpoint too."""
    return training.file.exists() and not checkpoint_of(training.file).exists()


def _told(module: LoraFile) -> dict[str, Any]:
    about = module.metadata
    record: dict[str, Any] = json.loads(about.get("msl.training", "{}"))
    return record | {
        "base": about.get("msl.base_sha256"),
        "method": about.get("msl.method"),
        "pictures": record.get("dataset_sha256"),
        # a safety LoRA has none but what its settings say
        "safety_mode": about.get("msl.safety_mode", record.get("safety_mode")),
        "safety LoRA": about.get("msl.safety_sha256", ""),
    }
