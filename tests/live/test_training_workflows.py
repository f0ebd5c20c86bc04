"""The two shipped training workflows on a live ComfyUI: they train, merge, sample and audit.

Cancelling keeps the file.
"""

import asyncio
import io
import json

import pytest
import requests
from modular_safety_lora.lab import assets
from modular_safety_lora.lab.plans import SAFETY, TASK
from modular_safety_lora.lab.server import PromptRefused
from modular_safety_lora.lab.shipped import api_form
from modular_safety_lora.modules import files
from PIL import Image
from prompting import with_reports

SMALL = {
    "preview_every": 2,
    "preview_size": 64,
    "preview_steps": 2,
    "steps": 3,
    "save_every": 1,
}


def shipped(name: str, **train) -> dict:
    """A shipped workflow in the API's form, with small pictures.

    `train` has other inputs for its training node.
    """
    prompt = api_form(name)
    node(prompt, "MSL_Train")["inputs"].update(SMALL | train)
    node(prompt, "EmptyLatentImage")["inputs"].update(width=64, height=64)
    node(prompt, "KSampler")["inputs"].update(steps=2)
    return prompt


def node(prompt: dict, kind: str) -> dict:
    return next(each for each in prompt.values() if each["class_type"].startswith(kind))


def number(prompt: dict, kind: str) -> str:
    return next(key for key, each in prompt.items() if each["class_type"].startswith(kind))


@pytest.fixture
def loras(server):
    """The live server's loras folder; what a test adds is taken away again."""
    folder = server.folder / "models" / "loras"
    before = set(folder.iterdir())
    yield folder
    for path in set(folder.iterdir()) - before:
        path.unlink()


def run(server, prompt, on_event=lambda kind, data: None):
    return asyncio.run(server.run(prompt, on_event))


def test_train_a_safety_lora(server, loras):
    prompt = shipped(
        SAFETY,
        resolution=64,
        sampling_steps=3,
        save_as="made-here",
        learning_rate=1e-3,
    )
    outcome = run(server, prompt)
    assert outcome.error is None, outcome.error
    module = files.load_safety(loras / "made-here.safetensors", "made-here.safetensors")
    assert module.metadata["msl.concept"] == "nudity" and module.metadata["msl.method"] == "esd-x"
    assert json.loads(module.metadata["msl.training"])["retain"] == ["a person wearing clothes"]
    assert module.sha256 in str(outcome.outputs) and not (loras / "made-here.resume").exists()
    chart = server.picture(outcome.outputs[number(prompt, "MSL_TrainSafetyLora")]["images"][0])
    assert Image.open(io.BytesIO(chart)).size == (1200, 900)
    previews = sorted((server.folder / "output" / "training" / "made-here").iterdir())
    assert [path.name for path in previews] == [
        f"step-{step:06d}-{at:02d}.png" for step in (0, 2, 3) for at in (0, 1)
    ]
    assert len(outcome.outputs[number(prompt, "MSL_NudityAudit")]["images"]) == 1


@pytest.mark.long
def test_a_formula_and_several_presets_run_in_the_same_node(server, loras):
    told = {"method": "uce", "concept": "", "steps": 1000, "preview_prompts": ""}
    told |= {"concept_preset": "nudity-salun", "more_presets": "nudity-mace"}
    prompt, ends = shipped(SAFETY, resolution=64, save_as="made-at-once"), set()
    place = number(prompt, "MSL_TrainSafetyLora")

    def look(kind: str, data: dict) -> None:
        if kind == "progress" and data["node"] == place:
            ends.add((data["value"], data["max"]))

    prompt[place]["inputs"].update(told)
    outcome = run(server, with_reports(prompt), look)
    assert outcome.error is None, outcome.error
    module = files.load_safety(loras / "made-at-once.safetensors", "made-at-once.safetensors")
    assert module.metadata["msl.method"] == "uce" and len(module.prompts) == 5
    assert ends == {(0, 1), (1, 1)}
    assert "**Computed: made-at-once.safetensors**" in outcome.outputs[place]["text"][0]


def test_train_a_task_lora(server, loras):
    prompt = shipped(TASK, save_as="style/new", batch_size=2, safety_mode="anchored")
    prompt[number(prompt, "MSL_Train")]["inputs"]["concept_prompts"] = "nude"
    texts = []
    outcome = run(server, with_reports(prompt), lambda kind, data: texts.append(kind))
    assert outcome.error is None, outcome.error
    module = files.load_task(loras / "style" / "new.safetensors", "new.safetensors")
    safety = files.load_safety(loras / assets.SAFETY, assets.SAFETY)
    assert (module.metadata["msl.safety_mode"], module.metadata["msl.safety_sha256"]) == (
        "anchored",
        safety.sha256,
    )
    assert json.loads(module.metadata["msl.training"])["pictures"] == 6
    shown = ("MSL_TrainTaskLora", "MSL_ModularMerge")
    training, merge = (json.loads(outcome.outputs[each]["text"][0]) for each in shown)
    assert [each["step"] for each in training["previews"]] == [0, 2, 3] and (
        training["previews"][-1]["images"] == 2
    )
    assert merge["modules"][1]["keys_matched"] == merge["modules"][1]["keys_total"] > 0
    assert len(outcome.outputs[number(prompt, "MSL_NudityAudit")]["images"]) == 1
    for path in (loras / "style").iterdir():
        path.unlink()
    (loras / "style").rmdir()


def test_pictures_without_a_caption_are_told_on_the_node_by_name(server, loras):
    folder = server.folder / "input" / "half"
    assets.training_pictures(folder)
    files_ = sorted(folder.glob("*.txt"))
    files_[1].unlink()
    files_[2].write_text(" \n")
    first = files_[1].with_suffix(".png").name
    prompt = shipped(TASK, save_as="half", steps=1, preview_prompts="")
    node(prompt, "LoadImageText")["inputs"]["folder"] = folder.name
    place = number(prompt, "MSL_Train")
    outcome = run(server, with_reports(prompt))
    assert outcome.error is None, outcome.error
    told = f"positive: 2 of 6 pictures without a caption (first: {first}), trained with the empty"
    (warning,) = json.loads(outcome.outputs["MSL_TrainTaskLora"]["text"][0])["caption_warnings"]
    assert warning.startswith(told) and warning in outcome.outputs[place]["text"][0]
    assert told in server.log.read_text(encoding="utf-8", errors="replace")
    prompt[number(prompt, "MakeTrainingDataset")]["inputs"].pop("texts")
    prompt[place]["inputs"]["save_as"] = "none"
    outcome = run(server, prompt)
    assert outcome.error is None, outcome.error
    told = "positive: not one of 6 pictures has a caption (first: number 1)"
    assert told in outcome.outputs[place]["text"][0]


def test_cancel_keeps_what_was_trained_and_running_again_goes_on(server, loras):
    prompt = shipped(TASK, save_as="cancelled", steps=500, preview_prompts="")

    def cancel(kind: str, data: dict) -> None:
        if (
            kind == "progress"
            and data["node"] == number(prompt, "MSL_Train")
            and data["value"] >= 3
        ):
            requests.post(f"{server.url}/interrupt", timeout=10)

    outcome = run(server, prompt, cancel)
    assert outcome.error is not None and "exception_message" not in outcome.error, (
        "interrupted, not failed"
    )
    kept = json.loads(
        files.load_task(loras / "cancelled.safetensors", "c").metadata["msl.training"]
    )["steps_done"]
    assert 3 <= kept < 500 and (loras / "cancelled.resume").exists()
    prompt[number(prompt, "MSL_Train")]["inputs"]["steps"] = kept + 2
    assert run(server, prompt).error is None
    module = files.load_task(loras / "cancelled.safetensors", "c")
    assert json.loads(module.metadata["msl.training"])["steps_done"] == kept + 2
    assert not (loras / "cancelled.resume").exists()


@pytest.mark.parametrize(
    ("save_as", "message"),
    [("../out", "this path leads outside the loras folders"), (" ", "save_as is empty")],
)
@pytest.mark.parametrize("name", [TASK, SAFETY])
def test_a_name_that_cannot_be_is_told_before_anything_runs(server, name, save_as, message):
    with pytest.raises(PromptRefused, match=message):
        run(server, shipped(name, save_as=save_as))


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"save_as": assets.STYLE}, "exists already"),
        (
            {"save_as": "x", "safety_mode": "frozen", "safety": None},
            "'frozen' needs a safety LoRA",
        ),
        (
            {"save_as": "x", "safety_mode": "anchored", "clip": None},
            "needs clip, to encode the concept's prompts",
        ),
        ({"save_as": "x", "vae": None}, "Previews need clip and vae"),
        ({"save_as": "x", "target_pattern": "nothing-like-it"}, "No layer of this model matches"),
        (
            {"save_as": "x", "optimizer": "prodigy", "learning_rate": 1e-3},
            "Prodigy finds the step size itself",
        ),
    ],
)
def test_a_run_that_cannot_be_says_why(server, loras, inputs, message):
    prompt = shipped(
        TASK,
        **{name: value for name, value in inputs.items() if value is not None},
    )
    for name in (name for name, value in inputs.items() if value is None):
        del node(prompt, "MSL_Train")["inputs"][name]
    before = set(loras.iterdir())
    outcome = run(server, prompt)
    assert outcome.error is not None and message in outcome.error["exception_message"]
    assert set(loras.iterdir()) == before
