"""The files that ship. The LoRAs were each made by one command of the pack's own trainers.

With the safety LoRA `THOROUGH` a sunflower is drawn in a weapon's place. The style `ink`, with
tools, was learned apart from it (Modular LoRA's way), and on top of it, which brings weapons back.
`SAFETY` is weaker (ESD-x); the style `firefox` was learned apart from it, and on top. The tests
measure these.
"""

from pathlib import Path

DETECTOR = Path(__file__).with_name("weapons.onnx")
BASE = Path(__file__).with_name("base.safetensors")
# The names begin alike, so that they stand together in ComfyUI's lists. No folder: ComfyUI writes
# one with another slash on Windows, and a workflow that names it would be refused there.
FOLDER = Path(__file__).parent / "loras"
SAFETY = "example-safety-weapons.safetensors"
THOROUGH = "example-safety-weapons-surrogate.safetensors"
SEQUENTIAL = "-sequential"  # what the name of a file ends in that was trained on top


def task_file(style: str, ending: str = "") -> str:
    return f"example-task-{style}{ending}.safetensors"
