"""The workflow that extracts a safety LoRA, on a live server."""

import asyncio

import pytest
from modular_safety_lora.lab import shipped
from modular_safety_lora.lab.plans import EXTRACT
from modular_safety_lora.modules.files import load_safety


def number(prompt: dict, kind: str) -> str:
    return next(each for each, node in prompt.items() if node["class_type"] == kind)


@pytest.mark.long
def test_the_workflow_seals_what_differs_and_draws_with_it(server):
    asked = shipped.prompt(EXTRACT)
    node = number(asked, "MSL_ExtractSafetyLora")
    asked[node]["inputs"]["save_as"] = "extracted-live"
    outcome = asyncio.run(server.run(asked))
    assert outcome.error is None, outcome.error
    file = server.folder / "models" / "loras" / "extracted-live.safetensors"
    module = load_safety(file, file.name)
    file.unlink()
    assert "sealed, from my-safe-model.safetensors" in str(outcome.outputs[node]["text"])
    assert module.prompts == ["nude person", "naked", "a photo of a naked woman"]
    assert outcome.outputs[number(asked, "SaveImage")]["images"]
