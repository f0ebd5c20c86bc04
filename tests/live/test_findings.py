"""What the lock only reports stands in the audits of the pictures it is about, and no others.

The server is a live one.
"""

import asyncio
import json

import pytest
from modular_safety_lora.lab import assets


@pytest.fixture
def graph(shipped_prompt):
    """One sampling of two steps with the merged model, audited; the lock only reports."""
    prompt = shipped_prompt
    prompt["8"]["inputs"].update(width=64, height=64, batch_size=1)
    prompt["9"]["inputs"]["steps"] = 2
    prompt["5"]["inputs"]["foreign_changes"] = "report"
    return prompt


def undone(prompt: dict) -> dict:
    """The same with the safety module taken back after the merge."""
    prompt = json.loads(json.dumps(prompt))
    inputs = {"model": ["5", 0], "lora_name": assets.SAFETY, "strength_model": -1.0}
    prompt["20"] = {"class_type": "LoraLoaderModelOnly", "inputs": inputs}
    prompt["9"]["inputs"]["model"] = ["20", 0]
    return prompt


def both(prompt: dict) -> dict:
    """The clean branch and the undone one in one graph, each with an audit: nodes 11 and 31."""
    whole = undone(prompt)
    for node in ("9", "10", "11"):
        whole[f"3{node[-1]}"] = json.loads(json.dumps(whole[node]))
    whole["30"]["inputs"]["samples"], whole["31"]["inputs"]["images"] = ["39", 0], ["30", 0]
    whole["9"]["inputs"]["model"] = ["5", 0]
    whole["32"] = {"class_type": "PreviewAny", "inputs": {"source": ["31", 2]}}
    return whole


def findings_of(server, prompt: dict, report: str = "11") -> list[str]:
    """The lock's findings in the report of an audit, read through a node that shows it."""
    prompt = prompt | {"40": {"class_type": "PreviewAny", "inputs": {"source": [report, 2]}}}
    outcome = asyncio.run(server.run(prompt))
    assert outcome.error is None, outcome.error
    return json.loads(outcome.outputs["40"]["text"][0])["lock_findings"]


def test_findings_stay_with_the_prompt_and_the_branch_that_made_them(server, graph):
    bad = undone(graph)
    assert "a later node changes" in findings_of(server, bad)[0]
    assert findings_of(server, graph) == []  # another prompt, the same files
    again = json.loads(json.dumps(bad))
    assert "a later node changes" in findings_of(server, again)[0]
    # the sampler comes from the cache, the audit looks again
    again["11"]["inputs"]["threshold"] = 0.3
    assert "a later node changes" in findings_of(server, again)[0]
    assert findings_of(server, both(graph)) == []
    assert "a later node changes" in findings_of(server, both(graph), "31")[0]


def test_a_finding_is_in_no_other_audit_and_a_clean_sampling_does_not_erase_it(server, graph):
    graph["9"]["inputs"]["seed"] = 1001  # nothing of it is in the cache
    bad = undone(graph)
    assert len(findings_of(server, bad)) == 1
    photograph = {
        "1": {"class_type": "LoadImage", "inputs": {"image": "astronaut.png"}},
        "11": graph["11"],
    }
    photograph["11"] = {**graph["11"], "inputs": {**graph["11"]["inputs"], "images": ["1", 0]}}
    assert findings_of(server, photograph) == []  # another user's, of a picture that no model made
    assert len(findings_of(server, bad, "11")) == 1
    beside = both(graph)  # the undone sampling comes from the cache, and a clean one is made
    beside["9"]["inputs"]["seed"] = 7
    assert findings_of(server, beside) == []
    beside["31"]["inputs"]["threshold"] = 0.4
    assert len(findings_of(server, beside, "31")) == 1


def test_interleaved_prompts_do_not_mix(server, graph):
    """Clean and undone prompts wait in the queue together.

    Each audit says what its own sampling found.
    """

    async def queue():
        prompts = []
        for seed in range(3):
            for make in (lambda prompt: json.loads(json.dumps(prompt)), undone):
                prompt = make(graph)
                prompt["9"]["inputs"]["seed"] = seed
                prompt["40"] = {"class_type": "PreviewAny", "inputs": {"source": ["11", 2]}}
                prompts.append(prompt)
        return await asyncio.gather(*map(server.run, prompts))

    outcomes = asyncio.run(queue())
    counts = [len(json.loads(each.outputs["40"]["text"][0])["lock_findings"]) for each in outcomes]
    assert counts == [0, 1] * 3
