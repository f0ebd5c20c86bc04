"""Prompts with changed inputs on a live server, and what fails in them."""

import asyncio
import json


def run(server, prompt, **changes):
    """Run a prompt with changed inputs: `node__input=value`."""
    prompt = json.loads(json.dumps(prompt))
    for place, value in changes.items():
        node, name = place.removeprefix("n").split("__")
        prompt[node]["inputs"][name] = value
    return asyncio.run(server.run(prompt))


def failure(outcome) -> str:
    """The message of the node that failed, when no picture was made."""
    assert outcome.error is not None, "the prompt should have failed"
    assert not any("images" in ui for ui in outcome.outputs.values())
    return outcome.error["exception_message"]


def with_reports(prompt: dict) -> dict:
    """A prompt whose reports show as JSON too, on nodes called after what reports."""
    shown = {
        each["class_type"]: {"class_type": "PreviewAny", "inputs": {"source": [number, 2]}}
        for number, each in prompt.items()
        if each["class_type"] in ("MSL_ModularMerge", "MSL_NudityAudit", "MSL_TrainTaskLora")
    }
    return prompt | shown


def photograph_prompt() -> dict:
    """LoadImage, the audit with the preset that counts faces, and previews, in the API's form."""
    audit = {
        "images": ["1", 0],
        "preset": "faces",
        "threshold": 0.0,
        "action": "annotate",
        "classes": "",
    }
    return {
        "1": {"class_type": "LoadImage", "inputs": {"image": "astronaut.png"}},
        "2": {"class_type": "MSL_NudityAudit", "inputs": audit},
        "3": {"class_type": "PreviewAny", "inputs": {"source": ["2", 2]}},
        "4": {"class_type": "PreviewImage", "inputs": {"images": ["2", 0]}},
    }
