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
