"""A live ComfyUI whose operator demands the lock.

The shipped workflow runs, and no graph samples without it.
"""

import asyncio
import base64
import json
import os

import pytest
from modular_safety_lora.lab import assets
from modular_safety_lora.lab.server import Server, place_models
from modular_safety_lora.modules.files import load_safety
from safetensors.torch import load_file, save_file


@pytest.fixture(scope="module")
def guarded(models, tmp_path_factory):
    """A server with `require_lock` and the one allowed safety module in its settings."""
    folder = tmp_path_factory.mktemp("guarded")
    place_models(models, folder)
    seal = load_safety(models / "loras" / assets.SAFETY, assets.SAFETY).sha256
    save_file(
        load_file(models / "loras" / assets.SAFETY),
        folder / "models" / "loras" / "plain.safetensors",
    )
    (folder / "user").mkdir()
    settings = json.dumps({"require_lock": True, "allowed_safety": [seal]})
    (folder / "user" / "modular-safety-lora.json").write_text(settings, encoding="utf-8")
    (folder / "user" / "default").mkdir()
    (folder / "user" / "default" / "modular-safety-lora.json").write_text("{}", encoding="utf-8")
    with Server(folder, ("--cpu", "--fp32-text-enc", "--disable-api-nodes")) as running:
        yield running


def test_the_shipped_workflow_runs(guarded, shipped_prompt):
    outcome = asyncio.run(guarded.run(shipped_prompt))
    assert outcome.error is None and outcome.outputs["12"]["images"]
    log = guarded.log.read_text(errors="replace")
    assert "no model samples without a safety LoRA" in log
    assert f"default{os.sep}modular-safety-lora.json is read by nothing" in log


def test_a_sampler_wired_past_the_merge_makes_no_picture(guarded, shipped_prompt):
    shipped_prompt["9"]["inputs"]["model"] = ["1", 0]
    outcome = asyncio.run(guarded.run(shipped_prompt))
    assert (
        "samples only from models that went through Modular Merge"
        in outcome.error["exception_message"]
    )
    assert not any("images" in shown for shown in outcome.outputs.values())


def test_a_merge_that_starts_from_the_base_makes_no_picture(guarded, shipped_prompt):
    inputs = {"model1": ["1", 0], "model2": ["5", 0], "ratio": 0.5}
    shipped_prompt["20"] = {"class_type": "ModelMergeSimple", "inputs": inputs}
    shipped_prompt["9"]["inputs"]["model"] = ["20", 0]
    outcome = asyncio.run(guarded.run(shipped_prompt))
    assert "went through Modular Merge" in outcome.error["exception_message"]


def test_keys_that_are_trusted_while_it_runs_hold_what_was_merged_before(guarded):
    """Seal, merge, show the report.

    The same graph again comes from the cache, and under other demands it does not.
    """
    graph = {
        "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": assets.CHECKPOINT}},
        "2": {
            "class_type": "MSL_SealSafetyLora",
            "inputs": {
                "lora_name": "plain.safetensors",
                "concept": "x",
                "strength": 1.0,
                "save_as": "mine",
            },
        },
        "3": {
            "class_type": "MSL_ModularMerge",
            "inputs": {
                "model": ["1", 0],  # and no clip: its network is asked nothing, which takes long
                "safety": ["2", 0],
                "foreign_changes": "refuse",
            },
        },
        "4": {"class_type": "PreviewAny", "inputs": {"source": ["3", 2]}},
    }
    outcome = asyncio.run(guarded.run(graph))
    assert outcome.error is None, outcome.error["exception_message"]
    assert asyncio.run(guarded.run(graph)).error is None, "it is not sealed again"
    file = guarded.folder / "user" / "modular-safety-lora.json"
    before = file.read_text(encoding="utf-8")
    try:
        file.write_text(
            json.dumps(
                json.loads(before) | {"trusted_keys": [base64.b64encode(bytes(32)).decode()]}
            )
        )
        outcome = asyncio.run(guarded.run(graph))
    finally:
        file.write_text(before, encoding="utf-8")
    assert (
        outcome.error and "mine.safetensors: it is not signed" in outcome.error["exception_message"]
    )
