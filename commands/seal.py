"""Turn a LoRA that you trust into a sealed safety LoRA. Needs no ComfyUI.

    python custom_nodes/modular-safety-lora seal eraser.safetensors --concept nudity \\
        --output safety.safetensors
    python custom_nodes/modular-safety-lora seal FOLDER --concept nudity --output FOLDER

    python custom_nodes/modular-safety-lora seal safety.safetensors --report report.json \\
        --output reported.safetensors

The seal covers every tensor, name and metadata entry, the strength too: what is changed later does
not load. With --report the short form of a report is sealed in. A safety LoRA that was sealed keeps
all else, gets a new seal, and needs a new signature.
"""

import argparse
from pathlib import Path

from ..function.inputs import Moments
from ..modules.roles import role_of
from ..modules.sealing import Sealing, files_of, seal_file, seal_report
from ..storage.texts import read_text
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
    add("--report", type=Path, metavar="FILE", help="its report, JSON that the verb report wrote")
    add(
        "--output",
        type=Path,
        required=True,
        help="the file to write; the folder, for a folder or several files",
    )


def work(options: argparse.Namespace) -> None:
    files = named(options.paths)
    several = len(files) > 1 or options.paths[0].is_dir()
    try:
        (folder if several else file_named(".safetensors"))(str(options.output))
    except argparse.ArgumentTypeError as error:
        raise ValueError(f"--output: {error}.") from error
    if several and options.report:
        raise ValueError("--report is of one safety LoRA; name one file.")
    report = read_text(options.report) if options.report else ""
    for path in files:
        output = options.output / path.name if several else options.output
        digest = _sealed(path, output, options, report)
        print(f"{output}: sealed, sha256 {digest}")


def _sealed(path: Path, output: Path, options: argparse.Namespace, report: str) -> str:
    if report and role_of(path) == "safety":
        return seal_report(path, output, report)
    (how,) = taken(options, Sealing)
    return seal_file(path, output, how, options.base, moments=Moments().text(), report=report)


def named(paths: list[Path]) -> list[Path]:
    """The files that are named, or below named folders. Raises ValueError when there is none."""
    files = files_of(paths)
    if not files:
        raise ValueError(f"There is no .safetensors file in {', '.join(map(str, paths))}.")
    return files
