"""Several presets in one run of the verb, by a formula: what is sealed, and what it says."""

import json

import cli
import pytest
from modular_safety_lora.lab import assets
from modular_safety_lora.modules import files
from modular_safety_lora.training.concepts import CONCEPTS

pytestmark = pytest.mark.usefixtures("no_chart", "unloaded")
PRESETS = ("nudity-salun", "nudity-mace")


def run(models, output, *more: str):
    checkpoint = models / "checkpoints" / assets.CHECKPOINT
    given = ["--checkpoint", checkpoint, "--output", output, "--resolution", "64"]
    return cli.run("train-safety", *given, *more)


def test_each_concept_goes_with_its_own_surrogate_into_one_sealed_file(models, tmp_path):
    output = tmp_path / "both.safetensors"
    told = ["--concept-preset", PRESETS[0], "--more-presets", PRESETS[1], "--method", "uce"]
    done = run(models, output, *told)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "after 1 step." in done.stdout and " 1/1 [" in done.stderr
    module = files.load_safety(output, output.name)
    pairs = [pair for name in PRESETS for pair in CONCEPTS[name].pairs]
    assert module.prompts == [concept for concept, _ in pairs] and len(pairs) == 5
    training = json.loads(module.metadata["msl.training"])
    assert training["surrogates"] == [surrogate for _, surrogate in pairs]
    assert training["steps"] == training["steps_done"] == 1
    report = json.loads(output.with_suffix(".json").read_text(encoding="utf-8"))
    assert report["computed"]["kept"] > 0.9999 and report["loss"]["last"]["erase"] < 0.5


def test_a_preset_that_is_none_is_one_line_before_anything_is_loaded(models, tmp_path):
    done = run(models, tmp_path / "x.safetensors", "--more-presets", "nudity-salun, gore")
    assert done.returncode and "more_presets is 'gore'; it must be one of" in done.stderr
    assert done.stderr.strip().count("\n") == 0 and not list(tmp_path.iterdir())
