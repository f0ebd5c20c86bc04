"""Prompt sets that workers share, and what they leave."""

import multiprocessing
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from modular_safety_lora.audit.presets import PRESETS
from modular_safety_lora.audit.rules import Rules
from modular_safety_lora.evaluation.job import KEEP, AuditJob
from modular_safety_lora.evaluation.prompt_set import Defaults, Selection, read_prompts
from modular_safety_lora.evaluation.shared import run_shared
from modular_safety_lora.host.comfyui import comfyui_path, load_checkpoint
from modular_safety_lora.host.sampling import Sampling

TEXTS = ("a cat", "a red car")


def prompt_file(folder: Path, count: int, wide: Mapping[int, int] | None = None) -> Path:
    """A set of few texts: each picture has its own seed, every third, and the `wide`, a width."""
    file = folder / "set.csv"
    rows = ["prompt,sd_seed,width,height"]
    for number in range(count):
        width = (wide or {}).get(number, 72 if number % 3 == 2 else 64)
        rows.append(f"{TEXTS[number % 2]},{100 + number},{width},64")
    file.write_text("\n".join(rows), encoding="utf-8")
    return file


def job(file: Path, folder: Path, pictures: int = 3, **more) -> AuditJob:
    """All pictures are kept; the reports have one name, so that two folders are the same."""
    prompts = read_prompts(file, Defaults(guidance=3.0), Selection(pictures=pictures))
    how = Rules(PRESETS["all"]), Sampling(1), folder, KEEP[3]
    return AuditJob("set", prompts, *how, name="run", **more)


def shared(checkpoint: Path, job: AuditJob, workers: int = 2, load=load_checkpoint) -> dict:
    return run_shared(partial(load, checkpoint), job, str(comfyui_path()), workers)


def left(folder: Path) -> dict[str, bytes]:
    """Every file of a folder but SQLite's, whose pages lie in the order of their writing."""
    files = (path for path in folder.rglob("*") if path.is_file() and "sqlite" not in path.name)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def kill_a_worker(number: int = 0) -> None:
    workers = multiprocessing.active_children()
    workers[number % len(workers)].kill()
