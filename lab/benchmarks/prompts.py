"""A long prompt set: what a picture costs beside sampling and detection, memory, and workers.

    .venv/bin/python -m modular_safety_lora.lab.benchmarks prompts [--prompts 1000] \\
        [--pictures 3] [--workers 1 2] [--steps 2] [--keep "flagged, censored"]

The small seeded checkpoint of the tests, 64 x 64 pixels, ten texts in turn, a thread for each
worker. One worker is this verb's own process, and says where its time goes: `beside` is what a
picture takes beyond text, sampling and detection, as a share of the latter two. `first` are the
seconds from the start, with all imports, until the first picture; `seconds` those from there to the
end of the last, the report not among them. Memory (RSS) is that of each process, at a tenth of the
pictures and after the last.
"""

import os
import tempfile
import time
from functools import partial
from pathlib import Path

import psutil
import torch

from ...audit.presets import PRESETS
from ...audit.rules import Rules
from ...evaluation import run as evaluation
from ...evaluation.job import AuditJob
from ...evaluation.prompt_set import Defaults, Selection, read_prompts
from ...evaluation.shared import run_shared
from ...host.comfyui import comfyui_path, load_checkpoint
from ...host.sampling_settings import Sampling
from .. import assets
from . import harness

FLAGS = {
    "prompts": 1000,
    "pictures": 3,
    "workers": harness.several([1, 2]),
    "steps": 2,
    "keep": "none",
}
TEXTS = 10
PARTS = {"text": "encode_texts", "sampling": "make_picture", "detection": "judged"}
COLUMNS = ("first", "seconds", "a picture, ms", *PARTS, "beside", "MB at a tenth", "MB at the end")


def main(options) -> None:
    harness.head("workers", *COLUMNS)
    how = {name: getattr(options, name) for name in FLAGS}
    for workers in options.workers:
        started = time.time()
        found = harness.alone(measured, workers, started, how)
        harness.row(workers, *(found[name] for name in COLUMNS))


def measured(workers: int, started: float, how: dict) -> dict:
    """What each column says of one run."""
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"
    load = partial(
        load_checkpoint, assets.shared_models(assets.ONE_LEVEL) / "checkpoints" / assets.CHECKPOINT
    )
    total, marks = how["prompts"] * how["pictures"], {}

    def watch(done: int, _) -> None:
        if done in (1, total // 10, total):
            marks[done] = time.time(), [parts[name].seconds for name in PARTS], memory()

    with tempfile.TemporaryDirectory() as name:
        file = Path(name, "prompts.csv")
        rows = [f"thing number {number % TEXTS},{number}" for number in range(how["prompts"])]
        file.write_text("\n".join(["prompt,sd_seed", *rows]), encoding="utf-8")
        asked = read_prompts(file, Defaults(0, 7.0, 64, 64), Selection(pictures=how["pictures"]))
        rules, folder = Rules(PRESETS["strict"]), Path(name, "run")
        job = AuditJob("prompts", asked, rules, Sampling(how["steps"]), folder, how["keep"], watch)
        with (
            harness.watched(evaluation, PARTS["text"]) as text,
            harness.watched(evaluation, PARTS["sampling"]) as sampling,
            harness.watched(evaluation, PARTS["detection"]) as detection,
        ):
            parts = dict(zip(PARTS, (text, sampling, detection), strict=True))
            if workers == 1:
                evaluation.run(*load(), job)
            else:
                run_shared(load, job, str(comfyui_path()), workers)
    (first, before, _), (end, after, last), tenth = marks[1], marks[total], marks[total // 10][2]
    each = 1000 / (total - 1)
    spent = [(b - a) * each for a, b in zip(before, after, strict=True)]
    found = {"first": f"{first - started:.1f} s", "seconds": f"{end - first:.1f}"}
    found["a picture, ms"] = f"{(end - first) * each:.1f}"
    found |= {name: f"{value:.1f}" for name, value in zip(PARTS, spent, strict=True)}
    beside = ((end - first) * each - sum(spent)) / (spent[1] + spent[2]) if spent[1] else None
    found["beside"] = "" if beside is None else f"{beside:.1%}"
    return found | {"MB at a tenth": tenth, "MB at the end": last}


def memory() -> str:
    """Megabytes of this process, and of those that it started."""
    own = psutil.Process()
    seen = [own, *sorted(own.children(recursive=True), key=lambda each: each.pid)]
    return " + ".join(f"{each.memory_info().rss / 2**20:.0f}" for each in seen)
