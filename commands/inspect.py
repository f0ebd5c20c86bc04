"""Say what LoRA files are, and whether they are intact. Only a base needs ComfyUI for it.

    python custom_nodes/modular-safety-lora inspect safety.safetensors
    python custom_nodes/modular-safety-lora inspect FOLDER --json
    python custom_nodes/modular-safety-lora inspect output/ComfyUI_00001_.png

The seal of a safety LoRA and the digests of a base and of a task LoRA stand under the names that
they have in the operator's settings. Of a picture it reads the verdict, what made it, and its C2PA
claim. The exit code is 1 when a file is not intact, and for every picture but one whose own verdict
says that it was not flagged.
"""

import argparse
import json
from pathlib import Path

from ..audit.pictures import SUFFIXES
from ..host.comfyui import enter_comfyui
from ..modules.sealing import NO_LORA, inspect
from ..provenance.reading import inspect as picture
from ..storage.texts import read_text
from .base import add_comfyui
from .seal import named

DIGESTS = {  # which is which, for people
    "allowed_safety": "the seal, which Load Safety LoRA (locked) takes in sha256",
    "allowed_bases": "the digest of a base, base_sha256 in a merge report",
    "allowed_tasks": "the digest of a task LoRA's tensors",
}


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "paths",
        nargs="+",
        type=Path,
        metavar="FILE",
        help="LoRA files or folders of them, and pictures",
    )
    parser.add_argument(
        "--trust",
        type=Path,
        metavar="PEM",
        help="certificates of issuers whose C2PA claims you trust; without it none is known",
    )
    add_comfyui(parser)
    parser.add_argument("--json", action="store_true", help="as JSON")


def work(options: argparse.Namespace) -> int:
    trusted = read_text(options.trust) if options.trust else ""
    found = [
        picture(path, trusted) if path.suffix.lower() in SUFFIXES else _found(path, options.comfyui)
        for path in named(options.paths)
    ]
    if options.json:
        print(json.dumps(found, indent=1))
    for each in found if not options.json else []:
        print(f"{each['path']}: {each['state']}")
        for name, value in each.items():
            if name not in ("path", "state") and value is not None:
                print(f"    {name}: {value}")
    for name in [each for each in DIGESTS if any(each in of_file for of_file in found)]:
        if not options.json:
            print(f"{name}: {DIGESTS[name]}")
    return 1 if any(each["fault"] for each in found) else 0


def _found(path: Path, comfyui: str | None) -> dict:
    """What a file is, with what the operator's settings take of it under the names they have."""
    found = inspect(path)
    if found["state"] == NO_LORA:
        enter_comfyui(comfyui)
        from ..host.bases import of_file

        base = of_file(path)
        return {**found, "allowed_bases": base.sha256, "fault": base.unknown or None}
    if found["state"].startswith("sealed"):
        return {**found, "allowed_safety": found.pop("sha256")}
    return {**found, "allowed_tasks": found.pop("sha256")} if "sha256" in found else found
