"""The shipped workflow with a probe before the sampler, on a live server."""

import asyncio
import json

from modular_safety_lora.lab.plans import PROBE as NAME
from modular_safety_lora.lab.shipped import prompt as shipped_prompt


def number(prompt: dict, kind: str) -> str:
    return next(each for each, node in prompt.items() if node["class_type"] == kind)


def test_what_passes_is_sampled_and_the_probe_shows_itself(server):
    prompt = shipped_prompt(NAME)
    for node in prompt.values():
        if node["class_type"] == "MSL_LoadTaskLora":
            node["inputs"].update(strength_model=0.02, strength_clip=0.02)
    probe = number(prompt, "MSL_ProbeSafety")
    assert prompt[probe]["inputs"]["action"] == "stop"
    outcome = asyncio.run(server.run(prompt))
    assert outcome.error is None
    shown = outcome.outputs[probe]
    assert shown["text"][0].startswith("**Passed**") and shown["images"]
    assert outcome.outputs[number(prompt, "MSL_NudityAudit")]["images"]
    again = asyncio.run(server.run(prompt))
    assert again.error is None


def test_a_merge_without_a_clip_ends_the_run_with_the_way_out(server):
    prompt = shipped_prompt(NAME)
    del prompt[number(prompt, "MSL_ModularMerge")]["inputs"]["clip"]
    clip = [number(prompt, "CheckpointLoaderSimple"), 1]
    for node in prompt.values():
        if node["class_type"] == "CLIPTextEncode":
            node["inputs"]["clip"] = clip
        if node["class_type"] == "MSL_LoadTaskLora":
            node["inputs"].update(strength_model=0.02)
    outcome = asyncio.run(server.run(prompt))
    assert "Connect clip to Modular Merge" in json.dumps(outcome.error, default=str)
