"""Sign sealed safety LoRAs in place with a private key. Needs no ComfyUI.

    python custom_nodes/modular-safety-lora sign key.pem safety.safetensors

The signature is over the seal; a LoRA that was signed before gets the new one.
"""

import argparse
from pathlib import Path

from ..modules.signing import sign_file
from .seal import named


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "key", type=Path, metavar="KEY", help="the private key, as new-key wrote it"
    )
    parser.add_argument(
        "paths",
        nargs="+",
        type=Path,
        metavar="FILE",
        help="sealed safety LoRAs, or folders of them",
    )


def work(options: argparse.Namespace) -> None:
    for path in named(options.paths):
        print(f"{path}: signed by {sign_file(path, options.key)}")
