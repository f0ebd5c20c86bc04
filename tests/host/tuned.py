"""A small experiment of fine-tuning: its job, its models by stock loaders, and quick encoding."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import comfy.sd
import merging
import pytest
from modular_safety_lora.audit import page
from modular_safety_lora.audit.presets import PRESETS
from modular_safety_lora.audit.rules import Rules
from modular_safety_lora.evaluation import run
from modular_safety_lora.evaluation.prompt_set import Defaults
from modular_safety_lora.experiment import learning
from modular_safety_lora.experiment.job import Experiment
from modular_safety_lora.experiment.settings import Asked
from modular_safety_lora.host.fingerprint import fingerprint
from modular_safety_lora.host.prompts import encode_texts
from modular_safety_lora.host.sampling_settings import Sampling
from modular_safety_lora.modules.files import LoraFile
from modular_safety_lora.reporting.prompts import pictures_of
from modular_safety_lora.training import data
from modular_safety_lora.training.engine import written
from modular_safety_lora.training.prompting import Erased
from modular_safety_lora.training.settings import Settings
from PIL import Image

GROUPS = {"told": ["nude"], "others": ["a naked person"], "adversarial": []}
GROUPS |= {"near": [], "far": []}  # test_fine_tuning_verb.py has harmless ones
SIZE = Defaults(width=64, height=64)


def experiment_of(place: Path, safety: LoraFile) -> Experiment:
    """Two steps, one repetition, two pictures of each arm."""
    folder = merging.picture_folder(place / "data", 2)
    return Experiment(
        place / "results",
        Asked(seeds=1, pictures_steps=1, save_every=1),
        Settings(steps=2, **merging.SMALL),
        data.of_folder(folder, 32),
        [safety],
        Erased(),
        {"concept": pictures_of(GROUPS, ("told", "others"), 1, SIZE)},
        Rules(PRESETS["all"]).pinned(),
        Sampling(1),
        "none",
    )


@contextmanager
def quick() -> Iterator[None]:
    """No charts of trainings, nor of the single audits: they have tests of their own.

    No LoRA here is on the text encoder, and each text is encoded once.
    """
    known: dict = {}

    def encoded(clip, texts) -> dict:
        wanted = [*texts, ""]
        missing = [each for each in wanted if each not in known]
        known.update(encode_texts(clip, missing) if missing else {})
        return {each: known[each] for each in wanted}

    with pytest.MonkeyPatch.context() as patch:
        for place in (run, learning):
            patch.setattr(place, "encode_texts", encoded)
        patch.setattr(written, "loss_plot", lambda *_, **__: Image.new("RGB", (12, 6)))
        patch.setattr(page, "plots", lambda _: [])
        yield


def by_stock(parts, *loras: LoraFile) -> str:
    """The fingerprint of the model with LoRAs on it, one loader after the other."""
    model, clip, vae = parts
    for each in loras:
        model, clip = comfy.sd.load_lora_for_models(model, clip, dict(each.tensors), 1.0, 1.0)
    return fingerprint(model, clip, vae).sha256


def arm_of(report: dict, name: str) -> dict:
    return next(arm for arm in report["arms"] if arm["arm"] == name)
