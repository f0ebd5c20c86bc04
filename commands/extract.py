"""Turn a published safe model into a sealed safety LoRA: how it differs from its base.

    python custom_nodes/modular-safety-lora extract esd-nudity.safetensors \\
        --checkpoint sd-v1-4.safetensors --concept nudity --output safety.safetensors

It may be a checkpoint, weights of ESD or UCE, a LoRA of SPM or MACE, or a folder that diffusers or
transformers saved (MACE, AdvUnlearn). What is kept of it is printed, and sealed in the file.
"""

import argparse
import json
from pathlib import Path

from ..extraction.settings import Extraction
from ..host.comfyui import enter_comfyui
from ..modules.sealing import Sealing
from .base import add_base, add_comfyui, load_base
from .flags import add_flags, taken
from .kinds import file_named
from .terminal import Bar, close_bars


def options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("source", type=Path, metavar="SAFE", help="the safe model: a file or a folder")
    add_base(parser, vae=False)
    add_flags(parser, Sealing, Extraction)
    add("--output", type=file_named(".safetensors"), required=True, help="the file to write")
    add("--json", action="store_true", help="print the report as JSON")
    add_comfyui(parser)


def work(options: argparse.Namespace) -> None:
    sealing, how = taken(options, Sealing, Extraction)
    enter_comfyui(options.comfyui)
    from ..extraction.extract import extract
    from ..extraction.loaded import Loaded
    from ..extraction.report import in_words

    model, clip, _ = load_base(options)
    bar = Bar("Extracting", "steps")
    made = extract(Loaded(model, clip), options.source, options.output, how, sealing, progress=bar)
    close_bars()
    if options.json:
        print(json.dumps(made.report, indent=1))
    else:
        print(f"{in_words(made.report)}\n\nIts sha256 is {made.module.sha256}.")
