"""The host tier runs inside ComfyUI: it is importable from here on, and so are the helpers that the tests share."""

import sys
from pathlib import Path

from modular_safety_lora.training.host import enter_comfyui

enter_comfyui()
sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]
