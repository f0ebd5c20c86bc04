"""The shipped workflows in the API's form, as they are and small enough for a CPU."""

import asyncio
import json

from .plans import MERGE
from .server import PACK, Server

WORKFLOWS = PACK / "workflows"


def api_form(name: str) -> dict:
    """A workflow as it is shipped."""
    return json.loads((WORKFLOWS / "api" / f"{name}.json").read_text(encoding="utf-8"))


def prompt(name: str, side: int = 64, steps: int = 2) -> dict:
    """A workflow with square pictures of `side` pixels, in `steps` of KSampler."""
    found = api_form(name)
    for node in found.values():
        if node["class_type"] == "EmptyLatentImage":
            node["inputs"].update(width=side, height=side)
        elif node["class_type"] == "KSampler":
            node["inputs"]["steps"] = steps
    return found


def merged(server: Server, **size: int) -> dict:
    """What a live server's merge retains of the safety LoRA, and how it holds the model."""
    asked = prompt(MERGE, **size)
    merge = next(at for at, each in asked.items() if each["class_type"] == "MSL_ModularMerge")
    asked["report"] = {"class_type": "PreviewAny", "inputs": {"source": [merge, 2]}}
    outcome = asyncio.run(server.run(asked))
    assert outcome.error is None, outcome.error
    report = json.loads(outcome.outputs["report"]["text"][0])
    dynamic = "DynamicVRAM support detected and enabled" in server.log.read_text(errors="replace")
    return {"retained safety": report["retained_safety"], "dynamic patcher": dynamic}
