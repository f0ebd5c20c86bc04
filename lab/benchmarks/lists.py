"""How long the loaders' lists take: seconds for ComfyUI's own, and for those by role.

    .venv/bin/python -m modular_safety_lora.lab.benchmarks lists --files 2000

The files have headers as large as an SDXL LoRA of kohya's, with its metadata; every hundredth is a
sealed safety LoRA by what it says. ComfyUI makes each list when it starts, at every page that
opens, and at every prompt.
"""

import tempfile
from pathlib import Path

import folder_paths
import torch
from safetensors.torch import save_file

from ...nodes.load import lora_names
from . import harness

LAYERS, METADATA = 722, 120_000  # layers with three tensors each; bytes
PARTS = {"lora_down.weight": (1, 8), "lora_up.weight": (8, 1), "alpha": ()}
SAFETY_EVERY = 100
TENSORS = {
    f"lora_unet_input_blocks_{n}_1_transformer_blocks_0_attn1_to_q.{part}": torch.zeros(size).half()
    for n in range(LAYERS)
    for part, size in PARTS.items()
}


def write_lora(path: Path, number: int) -> None:
    """A LoRA of tiny tensors under a header of 400 kB."""
    about = {"ss_tag_frequency": "x" * METADATA, "number": str(number)}
    about |= {"msl.role": "safety"} if number % SAFETY_EVERY == 0 else {}
    save_file(TENSORS, path, about)


FLAGS = {"files": 2000}


def main(options) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for number in range(options.files):
            write_lora(Path(folder, f"{number:05}.safetensors"), number)
        folder_paths.folder_names_and_paths["loras"] = ([folder], {".safetensors"})
        own = harness.seconds(lambda: folder_paths.get_filename_list("loras"))
        times = [harness.seconds(lambda: lora_names("safety")) for _ in range(2)]
    harness.head("files", "ComfyUI's list, s", "by role, first, s", "by role, again, s")
    harness.row(options.files, *(f"{each:.2f}" for each in (own, *times)))
