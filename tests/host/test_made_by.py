"""What an audit says of the model that made its pictures: of its locks, and of its graph."""

import json

import pytest
import torch
from comfy_execution.utils import CurrentNodeContext
from modular_safety_lora.audit import about
from modular_safety_lora.merge.about import about_model
from modular_safety_lora.merge.findings import HELD, Findings
from modular_safety_lora.nodes import made_by, running
from modular_safety_lora.nodes.nudity_audit import NudityAudit

HELD_HERE = {"base": "a.safetensors", "base_sha256": "ab" * 32, "loras": []}


def sampler(model: str, **more) -> dict:
    return {"class_type": "KSampler", "inputs": {"model": [model, 0], **more}}


GRAPH = {
    "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "a.safetensors"}},
    "2": sampler("1", seed=1, latent_image=["8", 0]),
    "4": {"class_type": "VAEDecode", "inputs": {"samples": ["2", 0], "vae": ["1", 2]}},
    "3": {"class_type": "MSL_NudityAudit", "inputs": {"images": ["4", 0], "preset": "strict"}},
    "8": {"class_type": "EmptyLatentImage", "inputs": {"width": 64, "height": 64}},
}
LORA = {"lora_name": "b.safetensors", "strength_model": 0.5, "model": ["1", 0], "clip": ["1", 1]}


@pytest.fixture
def known(monkeypatch) -> Findings:
    """Findings of their own, by the nodes that run."""
    found = Findings()
    found.where = running.here
    monkeypatch.setattr(made_by, "findings", found)
    return found


def audited(monkeypatch, graph: dict) -> tuple[dict, str]:
    """The audit's `about` and its words, in a graph."""
    monkeypatch.setattr(running, "_graph", lambda _: graph)
    with CurrentNodeContext("one", "3"):
        output = NudityAudit.execute(
            torch.zeros(1, 64, 64, 3), preset="strict", threshold=0.0, action="none"
        )
    return json.loads(output.args[2])["about"], output.args[4]


def sampled(monkeypatch, found: Findings, graph: dict, node: str = "2", *faults: str) -> None:
    """A model with a lock sampled at a node."""
    monkeypatch.setattr(running, "_graph", lambda _: graph)
    with CurrentNodeContext("one", node):
        found.note(json.dumps(HELD_HERE), kind=HELD)
        found.note(*faults)


def test_a_bypassed_merge_is_said_with_the_files_that_the_graph_names(monkeypatch, known):
    told, words = audited(monkeypatch, GRAPH)
    assert told["safety_lora"] == about.NONE and told["models"][0]["base"] == "a.safetensors"
    assert about.STATES[about.NONE] in words and words.startswith("checkpoint **a.safetensors**")
    lora = {**GRAPH, "9": {"class_type": "LoraLoader", "inputs": LORA}, "2": sampler("9")}
    told, words = audited(monkeypatch, lora)
    assert told["models"][0]["loras"] == [
        {"name": "b.safetensors", "role": "other", "sha256": None, "strength": 0.5}
    ]
    assert "LoRA outside Modular Merge **b.safetensors at 0.5**" in words


def test_an_intact_lock_is_said_and_one_that_found_something_too(monkeypatch, known):
    sampled(monkeypatch, known, GRAPH)
    told, words = audited(monkeypatch, GRAPH)
    assert told["safety_lora"] == about.INTACT and told["models"] == [HELD_HERE]
    assert about.STATES[about.INTACT] in words and "checkpoint **a.safetensors (abab" in words
    sampled(monkeypatch, known, GRAPH, "2", "the safety change is gone")
    told, words = audited(monkeypatch, GRAPH)
    assert told["safety_lora"] == about.FAULTS and "- the safety change is gone" in words
    assert about.STATES[about.INTACT] not in words


def test_a_second_sampling_without_a_lock_is_not_called_intact(monkeypatch, known):
    second = {**GRAPH, "5": sampler("1", seed=2, latent_image=["2", 0])}
    second["4"] = {"class_type": "VAEDecode", "inputs": {"samples": ["5", 0], "vae": ["1", 2]}}
    sampled(monkeypatch, known, second)
    assert audited(monkeypatch, second)[0]["safety_lora"] == about.PARTLY
    sampled(monkeypatch, known, second, "5")
    assert audited(monkeypatch, second)[0]["safety_lora"] == about.INTACT


def test_pictures_that_no_model_made_are_called_that(monkeypatch, known):
    photograph = {
        "1": {"class_type": "LoadImage", "inputs": {"image": "a.png"}},
        "3": {"class_type": "MSL_NudityAudit", "inputs": {"images": ["1", 0]}},
    }
    told, words = audited(monkeypatch, photograph)
    assert told["safety_lora"] == about.PICTURES and told["models"] == []
    assert about.STATES[about.PICTURES] in words and words.startswith("**None of 1 picture")
    monkeypatch.setattr(running, "_graph", lambda _: {})
    with CurrentNodeContext("one", "3"):  # another program executes it
        assert made_by.about_pictures()["safety_lora"] == about.PICTURES


def test_what_samples_beside_the_pictures_is_not_asked_for(monkeypatch, known):
    """A preview of the same model that does not flow into the audit says nothing of it."""
    beside = {**GRAPH, "6": sampler("1", seed=9)}
    sampled(monkeypatch, known, beside)
    assert audited(monkeypatch, beside)[0]["safety_lora"] == about.INTACT


def test_what_was_forgotten_is_not_known(monkeypatch, known):
    known.forgot = True
    assert audited(monkeypatch, GRAPH)[0]["safety_lora"] == about.UNKNOWN


def test_a_model_says_its_base_and_what_a_merge_put_on_it(parts, models):
    from modular_safety_lora.commands.audit_prompts import put_on
    from modular_safety_lora.lab import assets
    from modular_safety_lora.merge.about import is_on_text
    from modular_safety_lora.modules.files import load_safety

    plain = about_model(parts[0])
    assert plain["loras"] == [] and plain["patched"] == 0 and len(plain["base_sha256"]) == 64
    assert plain["base"] == assets.CHECKPOINT
    held = load_safety(models / "loras" / assets.SAFETY, assets.SAFETY)
    model, clip = put_on(*parts[:2], [held], [(models / "loras" / assets.STYLE, 0.5)])
    told = about_model(model)
    assert [(each["name"], each["role"], each["strength"]) for each in told["loras"]] == [
        (assets.SAFETY, "safety", held.sealed_strength),
        (assets.STYLE, "task", 0.5),
    ]
    assert told["loras"][0]["sha256"] == held.sha256 and told["base"] == assets.CHECKPOINT
    assert is_on_text(model, clip) and is_on_text(parts[0], parts[1])
