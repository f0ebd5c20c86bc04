"""Turn a LoRA that you trust into a sealed safety LoRA. Needs no ComfyUI.

    python custom_nodes/modular-safety-lora seal eraser.safetensors --concept nudity \\
        --output safety.safetensors
    python custom_nodes/modular-safety-lora seal FOLDER --concept nudity --output FOLDER

The seal covers every tensor, name and metadata entry, the strength too: what is changed later does
not load.
"""

import argparse
from pathlib import Path

from ..function.inputs import Moments
from ..modules.sealing import Sealing, files_of, seal_file
from .flags import add_flags, taken
from .kinds import file_named, folder


def options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("paths", nargs="+", type=Path, metavar="LORA", help="LoRA files, or folders of them")
    add_flags(parser, Sealing)
    add(
        "--base",
        help="the architecture as ComfyUI names it (SD15, SDXL, Flux); without it, detected",
    )
    add(
        "--output",
        type=Path,
        required=True,
        help="the file to write; the folder, for a folder or several files",
    )


def work(options: argparse.Namespace) -> None:
    (how,) = taken(options, Sealing)
    files = named(options.paths)
    several = len(files) > 1 or options.paths[0].is_dir()
    try:
        (folder if several else file_named(".safetensors"))(str(options.output))
    except argparse.ArgumentTypeError as error:
        raise ValueError(f"--output: {error}.") from error
    for path in files:
        output = options.output / path.name if several else options.output
        digest = seal_file(path, output, how, options.base, moments=Moments().text())
        print(f"{output}: sealed, sha256 {digest}")


def named(paths: list[Path]) -> list[Path]:
    """The files that are named, or below named folders. Raises ValueError when there is none."""
    files = files_of(paths)
    if not files:
        raise ValueError(f"There is no .safetensors file in {', '.join(map(str, paths))}.")
    return files
