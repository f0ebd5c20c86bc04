"""What the evidence log costs: a line, down to the disk, and reading a long log.

    .venv/bin/python -m modular_safety_lora.lab.benchmarks evidence

A line of a sampling with three LoRAs into a log in the folder, with and without fsync, and the
calls that the log asks for where it is off; then verify and summary of 100,000 such lines, with the
most memory that each takes. Medians; nothing is asserted. `--folder` names another disk.
"""

import os
import tempfile
from pathlib import Path

from ...evidence.files import file_from, write_head
from ...evidence.lines import START, new_line
from ...evidence.log import Log
from ...evidence.recorder import Recorder
from ...evidence.summary import summary
from ...evidence.verify import read_lines, verify
from . import harness

LORAS = [{"name": f"lora-{n}.safetensors", "role": "task", "sha256": "0" * 64} for n in range(3)]
FACTS = {"prompt_id": "0" * 36, "user": "anna", "base_sha256": "0" * 64, "loras": LORAS}


FLAGS = {"turns": 300, "lines": 100_000, "folder": ""}


def main(options) -> None:
    with tempfile.TemporaryDirectory(dir=options.folder or None) as folder:
        harness.head("what", "time", "memory")
        written, off = Log(Path(folder, "written"), 2**30), Recorder()
        for what, work in (
            ("a line, on the disk", lambda: written.record("sampled", FACTS)),
            ("a line that is not asked for", lambda: off.record("sampled", FACTS)),
        ):
            harness.row(what, f"{1e3 * harness.median(work, options.turns):.3f} ms", "")
        with harness.replaced(os, "fsync", lambda _: None):
            seconds = harness.median(lambda: written.record("sampled", FACTS), options.turns)
            harness.row("a line, without fsync", f"{1e3 * seconds:.3f} ms", "")
        long = Path(folder, "long")
        size = write(long, options.lines)
        for name, work in (
            ("verify", lambda: verify(long)),
            ("summary", lambda: summary(read_lines(long))),
        ):
            with harness.Peak() as peak:
                seconds = harness.median(work)
            what = f"{name} of {options.lines:,} lines ({size / 2**20:.0f} MB)"
            harness.row(what, f"{seconds:.1f} s", f"{peak.mb:.0f} MB")


def write(folder: Path, count: int) -> int:
    """A log of so many lines in one file, without fsync; its bytes."""
    folder.mkdir()
    digest = START
    with file_from(folder, 1).open("wb") as file:
        for number in range(1, count + 1):
            line = new_line(number, digest, "sampled", FACTS)
            file.write(line.raw + b"\n")
            digest = line.digest
    write_head(folder, count, digest)
    return file_from(folder, 1).stat().st_size
