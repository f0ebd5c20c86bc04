"""What a newcomer waits for: from an empty ComfyUI to the first verdict, each step's seconds.

    python -m modular_safety_lora.lab.benchmarks first_result

It installs the pack with ComfyUI-Manager's command line, starts the server, opens the page and a
template in a real browser, chooses the emoji world's files there, and runs. On the CPU.
"""

import sys
import tempfile
import time
from pathlib import Path

from .. import frontend, manager_install
from ..demo import shots
from ..plans import MERGE
from ..server import Server
from . import harness

TEXTS = """() => app.graph._nodes.filter((node) => node.type === 'PreviewAny')
    .map((node) => node.widgets[0].value)"""
FLAGS: dict[str, object] = {}


class Steps:
    """Seconds of each step, told when it is done."""

    def __init__(self):
        self.start = time.monotonic()
        harness.head("step", "seconds")

    def done(self, what: str) -> None:
        now = time.monotonic()
        harness.row(what, f"{now - self.start:.0f}")
        self.start = time.monotonic()


def main(options) -> int:
    executable = frontend.chromium()
    if not executable:
        print("No Chromium or Chrome found: nothing to open the page with.", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "ComfyUI"
        folder.mkdir()
        manager_install.bare(folder)
        address = manager_install.origin(Path(scratch) / "origin")
        shots.place(folder)
        steps = Steps()
        manager_install.manager(folder, "install", address)
        steps.done("install with the Manager's command line")
        with Server(folder, shots.ARGUMENTS, install=False) as server:
            steps.done("start ComfyUI")
            with frontend.browsing(executable) as browser:
                page = frontend.opened(browser, server.url)
                steps.done("open the page")
                shots.open_here(page, MERGE)
                steps.done("open the template, choose the files")
                shots.run(page, "Audited pictures")
                steps.done("run: load, merge, two pictures, audit")
                page.wait_for_timeout(500)
                for text in page.evaluate(TEXTS):
                    print(f"\n{text}", file=sys.stderr)
    return 0
