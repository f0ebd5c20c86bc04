"""How long the loaders' lists take: seconds for ComfyUI's own, and for those by role.

    .venv/bin/python -m modular_safety_lora.lab.benchmarks.lists --files 2000

The files have headers as large as an SDXL LoRA of kohya's, with its metadata; every hundredth is a
sealed safety LoRA by what it says. ComfyUI makes each list when it starts, at every page that
opens, and at every prompt.
"""

import json
import struct
import tempfile
from pathlib import Path

from ...host.comfyui import enter_comfyui
from . import harness

LAYERS, METADATA = 722, 120_000  # layers with three tensors each; bytes
PARTS = (("lora_down.weight", [1, 8]), ("lora_up.weight", [8, 1]), ("alpha", []))
SAFETY_EVERY = 100


def write_lora(path: Path, number: int) -> None:
    """A LoRA of tiny tensors under a header of 400 kB."""
    about = {"ss_tag_frequency": "x" * METADATA, "number": str(number)}
    about |= {"msl.role": "safety"} if number % SAFETY_EVERY == 0 else {}
    header, end = {"__metadata__": about}, 0
    for layer in range(LAYERS):
        for part, shape in (
            ("lora_down.weight", [1, 8]),
            ("lora_up.weight", [8, 1]),
            ("alpha", []),
        ):
            start, end = end, end + (16 if shape else 2)
            name = f"lora_unet_input_blocks_{layer}_1_transformer_blocks_0_attn1_to_q.{part}"
            header[name] = {"dtype": "F16", "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(end))


def main() -> None:
    flags = harness.options(__doc__, files=2000)
    enter_comfyui()
    import folder_paths

    from ...nodes.load import lora_names

    with tempfile.TemporaryDirectory() as folder:
        for number in range(flags.files):
            write_lora(Path(folder, f"{number:05}.safetensors"), number)
        folder_paths.folder_names_and_paths["loras"] = ([folder], {".safetensors"})
        own = harness.seconds(lambda: folder_paths.get_filename_list("loras"))
        times = [harness.seconds(lambda: lora_names("safety")) for _ in range(2)]
    harness.head("files", "ComfyUI's list, s", "by role, first, s", "by role, again, s")
    harness.row(flags.files, *(f"{each:.2f}" for each in (own, *times)))


if __name__ == "__main__":
    main()
