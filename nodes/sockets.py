"""The sockets of the pack: each carries a list of modules, so that loaders can be chained."""

import json
import re

from comfy_api.latest import io

CATEGORY = "safety/modular LoRA"

SafetyLora = io.Custom("MSL_SAFETY_LORA")  # list[Module]
TaskLora = io.Custom("MSL_TASK_LORA")  # list[Task]


def as_text(report: dict) -> str:
    """A report as JSON for people: indented, with lists of numbers on one line."""
    text = json.dumps(report, indent=1)
    return re.sub(r"\[[-\d.e,\s]+\]", lambda numbers: " ".join(numbers[0].split()), text)
