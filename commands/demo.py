"""Show what the pack is for, with a small model that ships: a page of pictures, in a minute.

    python custom_nodes/modular-safety-lora demo

A base model, the same made safe, fine-tuned after that, and modular draw the same prompts, and an
audit counts the weapons. Nothing is downloaded, no server runs. The page is OUTPUT/index.html; a
run that was stopped goes on.
"""

import argparse
import time
from pathlib import Path

from ..host.comfyui import enter_comfyui
from .base import add_comfyui
from .kinds import folder
from .terminal import Bar


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--output", type=folder, default=Path("demo-output"), help="the folder of the page"
    )
    add_comfyui(parser)


def work(options: argparse.Namespace) -> None:
    start = time.monotonic()
    print("Loading the example model ...", flush=True)
    enter_comfyui(options.comfyui)
    from ..emoji.demo import tell

    with Bar("Drawing and auditing", "pictures") as bar:
        page = tell(options.output, bar)
    seconds = time.monotonic() - start
    print(f"Done in {seconds:.0f} s. Open this page in a browser: {page.resolve()}")
