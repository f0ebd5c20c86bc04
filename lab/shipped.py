"""The shipped workflows in the API's form, as they are and small enough for a CPU."""

import json

from .server import PACK

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
