"""A trained safety module carries its held-out prompts and where it was trained; neither trains."""

import json

import pytest
import torch
from modular_safety_lora.function.inputs import moments_of
from modular_safety_lora.modules import files
from modular_safety_lora.training.adapter_settings import AdapterSettings
from modular_safety_lora.training.engine.job import TrainingJob
from modular_safety_lora.training.objectives import Erasure
from modular_safety_lora.training.safety import train_safety
from modular_safety_lora.training.settings import Settings

pytestmark = pytest.mark.usefixtures("no_chart")
FAST = Settings(steps=1, learning_rate=3e-3, adapter=AdapterSettings(2, 2.0))


def trained(model, texts, file, **more):
    job, erasure = TrainingJob(file), Erasure(sampling_steps=2)
    train_safety(model, texts, ["nude"], FAST, job, erasure=erasure, resolution=32, **more)
    return files.load_safety(file, file.name)


def test_held_out_prompts_are_sealed_and_change_nothing_that_trains(model, texts, tmp_path):
    plain = trained(model, texts, tmp_path / "plain.safetensors")
    module = trained(model, texts, tmp_path / "more.safetensors", held_out=["naked person"])
    assert module.held_out == ["naked person"] and not plain.held_out
    assert all(torch.equal(value, plain.tensors[key]) for key, value in module.tensors.items())
    for each in (plain, module):
        moments = moments_of(each.metadata, each.name)
        assert moments.resolution == 32 and len(moments.levels) > 1
        assert json.loads(each.metadata["msl.moments"])["seeds"] == [1, 2]


def test_what_is_trained_on_or_retained_cannot_be_held_out(model, texts, tmp_path):
    for held_out, retain in ((["Nude"], []), (["a cat"], ["a cat"])):
        with pytest.raises(ValueError, match="is both held out and trained on"):
            trained(model, texts, tmp_path / "x.safetensors", held_out=held_out, retain=retain)
