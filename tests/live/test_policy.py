"""A live ComfyUI whose operator demands the lock, and has all that happens in the evidence log.

The shipped workflow runs, and no graph samples without it.
"""

import asyncio
import base64
import json
import os
import urllib.request

import cli
import pytest
from modular_safety_lora.evidence.files import FOLDER
from modular_safety_lora.evidence.verify import read_lines, verify
from modular_safety_lora.lab import assets
from modular_safety_lora.lab.server import Server, place_models
from modular_safety_lora.modules.files import load_safety
from safetensors.torch import load_file, save_file


@pytest.fixture(scope="module")
def guarded(models, tmp_path_factory):
    """A server of several users with `require_lock`, the one allowed safety module, and the log."""
    folder = tmp_path_factory.mktemp("guarded")
    place_models(models, folder)
    seal = load_safety(models / "loras" / assets.SAFETY, assets.SAFETY).sha256
    save_file(
        load_file(models / "loras" / assets.SAFETY),
        folder / "models" / "loras" / "plain.safetensors",
    )
    (folder / "user").mkdir()
    log = {"evidence_log": {"prompts": True}, "metrics_file": "msl.prom"}
    settings = json.dumps({"require_lock": True, "allowed_safety": [seal]} | log)
    (folder / "user" / "modular-safety-lora.json").write_text(settings, encoding="utf-8")
    (folder / "user" / "default").mkdir()
    (folder / "user" / "default" / "modular-safety-lora.json").write_text("{}", encoding="utf-8")
    with Server(
        folder, ("--cpu", "--fp32-text-enc", "--disable-api-nodes", "--multi-user")
    ) as running:
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


def post(server, path: str, body: dict, user: str) -> dict:
    """POST as a user does."""
    data, kind = json.dumps(body).encode(), {"Content-Type": "application/json"}
    asked = urllib.request.Request(f"{server.url}{path}", data, {**kind, "comfy-user": user})
    return json.loads(urllib.request.urlopen(asked, timeout=30).read())


def ended(server, prompt_id: str) -> dict:
    """What the history has of a prompt once it has ended."""

    async def wait():
        while prompt_id not in (found := server.get(f"/history/{prompt_id}").json()):
            await asyncio.sleep(0.1)
        return found[prompt_id]

    return asyncio.run(asyncio.wait_for(wait(), 120))


def test_who_asked_and_what_came_of_it_is_in_the_log(guarded, shipped_prompt):
    shipped_prompt["8"]["inputs"].update(width=64, height=64, batch_size=1)
    shipped_prompt["9"]["inputs"]["steps"] = 2
    anna, eve = (post(guarded, "/users", {"username": name}, "") for name in ("anna", "eve"))
    good = post(guarded, "/prompt", {"prompt": shipped_prompt, "client_id": "c1"}, anna)[
        "prompt_id"
    ]
    assert ended(guarded, good)["status"]["status_str"] == "success"
    hostile = json.loads(json.dumps(shipped_prompt))
    hostile["9"]["inputs"]["model"] = ["1", 0]
    bad = post(guarded, "/api/prompt", {"prompt": hostile, "client_id": "c2"}, eve)["prompt_id"]
    told = dict(ended(guarded, bad)["status"]["messages"])["execution_error"]
    assert told["exception_type"] == "Modular Safety LoRA.NoLock"
    folder = guarded.folder / "user" / FOLDER
    lines = {line.kind: dict(line.facts) for line in read_lines(folder)}  # the newest of each
    assert {"started", "merged", "sampled", "audited", "refused"} <= lines.keys()
    for kind in ("sampled", "audited"):  # the merge may come from the cache
        found = [lines[kind][name] for name in ("prompt_id", "client", "user", "authenticated")]
        assert found == [good, "c1", anna, False], kind
    assert lines["refused"]["user"] == eve and lines["refused"]["prompt_id"] == bad
    assert lines["refused"]["reason"] == "NoLock" and lines["refused"]["node"] == "9"
    assert lines["sampled"]["prompts"] and all(lines["sampled"]["prompts"])
    assert "lock_findings" in lines["audited"]
    assert verify(folder).whole
    assert anna in cli.run("log", "summary", "--folder", folder).stdout


def test_nobody_can_read_the_log_over_the_api(guarded):
    for path in (f"../{FOLDER}/head", f"{FOLDER}/head", "head"):
        asked = urllib.request.Request(
            f"{guarded.url}/userdata/{path.replace('/', '%2F')}", headers={"comfy-user": FOLDER}
        )
        with pytest.raises(urllib.error.HTTPError):
            urllib.request.urlopen(asked, timeout=30)


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
