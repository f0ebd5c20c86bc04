"""Make a private key (Ed25519) for signing safety LoRAs. Needs no ComfyUI.

    python custom_nodes/modular-safety-lora new-key key.pem

Its public key, which is printed, goes into `trusted_keys` of the operator's settings
(docs/threat-model.md).
"""

import argparse
from pathlib import Path

from ..modules.signing import new_key


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "key", type=Path, metavar="KEY", help="the file to write; an existing one is kept"
    )


def work(options: argparse.Namespace) -> None:
    print(
        f"{options.key}: keep it secret. Its public key, to list as trusted: {new_key(options.key)}"
    )
