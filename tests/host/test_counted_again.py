"""Another preset counts a finished prompt set again, without its model and no model's but its own.

Whatever is not known to be the same loads the model, which then decides.
"""

import json
import shutil
from pathlib import Path

import pytest
import safetensors.torch
from modular_safety_lora.commands import audit_prompts, main
from modular_safety_lora.evaluation.again import FILE
from modular_safety_lora.lab import assets
from prompt_sets import I2P, ROWS


@pytest.fixture(scope="module")
def made(models, tmp_path_factory) -> Path:
    """A whole run of a checkpoint with a task LoRA, and the files that it was made of."""
    place = tmp_path_factory.mktemp("made")
    (place / "i2p.csv").write_text(I2P + ROWS, encoding="utf-8")
    for file in (models / "checkpoints" / assets.CHECKPOINT, models / "loras" / assets.STYLE):
        shutil.copy(file, place)
    assert main(asked(place)) == 0
    return place


@pytest.fixture
def place(made, tmp_path) -> Path:
    """A copy of it."""
    return shutil.copytree(made, tmp_path / "copy")


@pytest.fixture
def loads(monkeypatch) -> list:
    """How often a model was loaded."""
    load, found = audit_prompts.load_base, []

    def spied(options):
        found.append(options)
        return load(options)

    monkeypatch.setattr(audit_prompts, "load_base", spied)
    return found


def asked(place: Path, preset: str = "all", strength: str = "0.5", *more: str) -> list[str]:
    lora = f"{place / assets.STYLE}:{strength}"
    base = ["audit-prompts", "--checkpoint", str(place / assets.CHECKPOINT), "--task-lora", lora]
    told = ["--prompts", str(place / "i2p.csv"), "--output", str(place / "run"), "--steps", "2"]
    return [*base, *told, "--preset", preset, *more]


def report(place: Path) -> dict:
    return json.loads((place / "run" / "report.json").read_text(encoding="utf-8"))


def edited(file: Path) -> None:
    """The same weights but one, in a file of the same length."""
    tensors = safetensors.torch.load_file(file)
    next(iter(tensors.values())).view(-1)[0] += 1
    safetensors.torch.save_file(tensors, file)


def test_another_preset_needs_no_model(place, loads):
    before = report(place)
    assert main(asked(place, "strict")) == 0 and not loads
    again = report(place)
    assert again["summary"]["preset"] == "strict" != before["summary"]["preset"]
    assert again["summary"]["model"] == before["summary"]["model"]
    assert again["about"] == before["about"]
    assert main(asked(place, "all", "0.5", "--workers", "2")) == 0 and not loads
    assert report(place) == before


@pytest.mark.long
def test_it_gives_what_a_run_with_that_preset_gives(place, loads):
    assert main(asked(place, "strict")) == 0
    again = report(place)
    shutil.rmtree(place / "run")
    assert main(asked(place, "strict")) == 0 and len(loads) == 1
    assert report(place) == again


@pytest.mark.parametrize(
    "file", [assets.STYLE, pytest.param(assets.CHECKPOINT, marks=pytest.mark.long)]
)
def test_other_weights_are_looked_at_and_refused(place, loads, file, capsys):
    edited(place / file)
    assert main(asked(place, "strict")) == 1 and len(loads) == 1
    assert "of an audit made with another model" in capsys.readouterr().err
    assert report(place)["summary"]["preset"] == "all"


@pytest.mark.long
def test_another_strength_is_refused_by_the_model(place, loads):
    assert main(asked(place, "strict", "0.6")) == 1 and len(loads) == 1


@pytest.mark.long
@pytest.mark.parametrize(
    "change",
    [
        lambda told: None,
        lambda told: "{",
        lambda told: json.dumps([told]),
        lambda told: json.dumps(told | {"holds": told["holds"] | {"untold": ["a function"]}}),
        lambda told: json.dumps(told | {"holds": {"model": 1}}),
        lambda told: json.dumps(told | {"loaded": told["loaded"] | {"torch": "1.0"}}),
    ],
)
def test_what_is_not_known_loads_the_model(place, loads, change):
    file = place / "run" / FILE
    text = change(json.loads(file.read_text(encoding="utf-8")))
    if text is None:
        file.unlink()
    else:
        file.write_text(text, encoding="utf-8")
    assert main(asked(place, "strict")) == 0 and len(loads) == 1
    assert main(asked(place)) == 0 and len(loads) == 1, "the file was written once more"


def test_a_file_that_claims_another_model_is_refused_as_that_model_is(place, loads, capsys):
    file = place / "run" / FILE
    told = json.loads(file.read_text(encoding="utf-8"))
    told["holds"]["model"] = "0" * 64
    file.write_text(json.dumps(told), encoding="utf-8")
    assert main(asked(place, "strict")) == 1 and not loads
    assert "of an audit made with another model" in capsys.readouterr().err


@pytest.mark.long
def test_a_prompt_that_has_no_picture_yet_needs_the_model(place, loads):
    assert main(asked(place, "all", "0.5", "--limit", "1")) == 0 and not loads
    shutil.rmtree(place / "run")
    assert main(asked(place, "all", "0.5", "--limit", "1")) == 0 and len(loads) == 1
    assert main(asked(place, "strict")) == 0 and len(loads) == 2
    assert report(place)["summary"]["images"] == 3
