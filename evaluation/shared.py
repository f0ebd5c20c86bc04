"""A prompt set over processes or machines: each has its own model, and one keeps the rows."""

import contextlib
import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch

from ..audit.crew import Crew, Seat
from ..audit.on_ray import RaySeat, connected
from ..audit.processes import Process
from .job import AuditJob, unseen
from .rows import Made, alone_in, asked, kept
from .run import windows
from .worker import Recipe, begin, make

THREADS = "OMP_NUM_THREADS"
DIED = "the process that made it died, each time (out of memory, or something ended it)"


def run_shared(load: Callable, job: AuditJob, comfyui: str, workers: int, ray: str = "") -> dict:
    """Make and audit what is missing in the job's folder, as `run` does and with its results.

    `load` gives (MODEL, CLIP, VAE) in each of the `workers`: processes here, which take turns at
    the CUDA devices, or actors of the Ray at an address. A picture whose worker dies is made by
    another one, TRIES times; then its row says so. On the CPU the threads are divided, unless
    OMP_NUM_THREADS says how many each has; the last bits of pictures depend on it there.
    """
    job = replace(job, rules=job.rules.pinned())
    with contextlib.ExitStack() as held:
        held.enter_context(alone_in(job))
        recipe = Recipe(
            comfyui, load, replace(job, on_picture=unseen), 0 if ray else _each(workers)
        )
        if ray:
            open_seat = partial(_on_ray, held.enter_context(connected(workers, ray)), workers)
        else:
            open_seat = partial(_here, devices())
        crew = held.enter_context(Crew(open_seat, workers, partial(begin, recipe), make))
        holds = crew.begun(max(1, len(job.prompts) - job.done()))
        rows = held.enter_context(kept(job, holds))
        for (prompt, _), made in crew.done(windows(rows.todo, workers)):
            rows.add(prompt, made or Made(asked(prompt) | {"unreadable": DIED}))
        return rows.report()


def devices() -> list[str]:
    """The CUDA devices, as CUDA calls them; none without CUDA."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    return chosen.split(",") if chosen else [str(each) for each in range(torch.cuda.device_count())]


def _here(there: list[str], number: int) -> Seat:
    return Process({"CUDA_VISIBLE_DEVICES": there[number % len(there)]} if there else {})


def _on_ray(ray, workers: int, _: int) -> Seat:
    return RaySeat(ray, workers)


def _each(workers: int) -> int:
    """How many threads a worker has on the CPU."""
    threads = torch.get_num_threads()
    return threads if os.environ.get(THREADS) else max(1, threads // workers)
