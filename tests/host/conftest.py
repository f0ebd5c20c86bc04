"""The host tier runs inside ComfyUI: it is importable from here on, and so are the helpers that the tests share."""

import sys
from pathlib import Path

import pytest
from modular_safety_lora.training.host import enter_comfyui

enter_comfyui()
sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]


@pytest.fixture
def model(checkpoint):
    """A clone of the small checkpoint's MODEL, unloaded afterwards."""
    import comfy.model_management

    yield checkpoint[0].clone()
    comfy.model_management.unload_all_models()
