"""Say what module files are, and whether they are intact. Needs no ComfyUI.

    python -m modular_safety_lora inspect safety.safetensors
    python -m modular_safety_lora inspect FOLDER --json

The exit code is 1 when a file is not intact.
"""

import argparse
import json
from pathlib import Path

from ..modules.sealing import inspect
from .seal import named


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "paths", nargs="+", type=Path, metavar="FILE", help="module files, or folders of them"
    )
    parser.add_argument("--json", action="store_true", help="as JSON")


def work(options: argparse.Namespace) -> int:
    found = [inspect(path) for path in named(options.paths)]
    if options.json:
        print(json.dumps(found, indent=1))
    for each in found if not options.json else []:
        print(f"{each['path']}: {each['state']}")
        for name, value in each.items():
            if name not in ("path", "state") and value is not None:
                print(f"    {name}: {value}")
    return 1 if any(each["fault"] for each in found) else 0
