"""The workflows for other models than SD1.5 run on a live server, with stand-ins for the models.

The networks are small ones of the host's own classes; loaders, texts and VAEs are stand-ins
(standins/), because the host fixes the sizes that its loaders know.
"""

import asyncio
import json
import shutil
from pathlib import Path

import pytest
from modular_safety_lora.lab import assets, workflow_variants
from modular_safety_lora.lab.server import Server
from modular_safety_lora.lab.shipped import api_form
from modular_safety_lora.lab.variants import VARIANTS
from modular_safety_lora.modules import files

MERGE, SAFETY, TASK = workflow_variants.KINDS
NAMES = workflow_variants.names()
BY_TITLE = {variant.title: variant for variant in VARIANTS}
# the workflows are those of SD1.5, which run each time, and the families train in test_models.py
pytestmark = pytest.mark.long
TRAIN = {
    "steps": 2,
    "resolution": 64,
    "preview_size": 64,
    "preview_every": 2,
    "preview_steps": 1,
    "learning_rate": 1e-3,
    "save_every": 0,
}
SMALL = {
    "KSampler": {"steps": 1},
    "MSL_TrainSafetyLora": TRAIN | {"sampling_steps": 2},
    "MSL_TrainTaskLora": TRAIN,
}


@pytest.fixture(scope="module")
def standing(comfyui, tmp_path_factory):
    """A server where small models of the families stand in for what the loaders name."""
    folder = tmp_path_factory.mktemp("standing-in")
    shutil.copytree(Path(__file__).parent / "standins", folder / "custom_nodes" / "standins")
    assets.training_pictures(folder / "input" / "training-pictures", 2)
    (folder / "models" / "loras").mkdir(parents=True)
    with Server(folder, ("--cpu", "--disable-api-nodes")) as running:
        yield running


def small(kind: str, title: str) -> dict:
    """The API form of a workflow, with one step and small pictures."""
    prompt = api_form(NAMES[kind, BY_TITLE[title]])
    for node in prompt.values():
        inputs = node["inputs"]
        inputs.update(SMALL.get(node["class_type"], {}))
        if node["class_type"].startswith("Empty"):
            inputs.update(width=64, height=64, batch_size=1)
            if "length" in inputs:
                inputs["length"] = 5
        if "save_as" in inputs:
            inputs["save_as"] = f"{title}/{inputs['save_as']}"
        if "lora_name" in inputs:
            inputs["lora_name"] = f"{title}/{inputs['lora_name']}"
        if "name" in inputs:
            inputs["name"] = f"{title}/{inputs['name']}"
    return prompt


@pytest.mark.parametrize("title", BY_TITLE)
def test_a_models_workflows_run_one_after_the_other(standing, title):
    """The safety LoRA and the task LoRA that are trained here are merged and audited here."""
    loras = standing.folder / "models" / "loras" / title
    for kind in (SAFETY, TASK, MERGE):
        prompt = small(kind, title)
        outcome = asyncio.run(standing.run(prompt))
        assert outcome.error is None, f"{kind}: {outcome.error}"
        for number, node in prompt.items():
            if node["class_type"].startswith(("MSL_Train", "MSL_Nudity", "Save")):
                assert outcome.outputs[number]["images"], (kind, node["class_type"])
        if kind == TASK:
            shutil.copy(loras / "my-style.safetensors", loras / "my-subject.safetensors")
    module = files.load_safety(loras / "my-safety-lora.safetensors", title)
    assert json.loads(module.metadata["msl.training"])["steps_done"] == 2
