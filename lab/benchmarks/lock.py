"""What the lock costs: the check as a share of sampling, and the digest of a large module.

    .venv/bin/python -m modular_safety_lora.lab.benchmarks lock

On the small seeded checkpoint with its safety module and both task modules merged: the check at
sampling before the weights load, the same when a later clone added something, the check of what was
loaded, and the time of a 20-step sampling of 64x64 pixels with guidance. Then loading a sealed
module of 500 MB, digest included, in a file that is in the page cache, against hashing the same
file with `hashlib` alone. Medians; nothing is asserted.
"""

import hashlib
import tempfile
from collections.abc import Callable
from pathlib import Path

import comfy.sample
import torch

from ...host.prompts import encode_texts
from ...merge.merge import Task, merge
from ...merge.on_model import KEY
from ...modules.files import load_safety, load_task, save_module
from .. import assets
from . import harness, models

MEGABYTES = 500
Row = tuple[str, Callable[[], object], int]  # what it is, and how many turns of it


def at_sampling(turns: int) -> list[Row]:
    model, clip, loras = models.small()
    tasks = [Task(load_task(loras / name, name)) for name in (assets.STYLE, assets.SUBJECT)]
    merged = merge(model, [load_safety(loras / assets.SAFETY, assets.SAFETY)], tasks).model
    lock = merged.get_attachment(KEY)
    later = merged.clone()
    later.add_patches({"diffusion_model.out.2.bias": ("diff", (torch.zeros(4),))})
    texts = encode_texts(clip, ["a picture"])
    latent = torch.zeros(1, 4, 8, 8)
    noise = comfy.sample.prepare_noise(latent, 1)

    def sample() -> None:
        arguments = (20, 5.0, "euler", "normal", texts["a picture"], texts[""], latent)
        comfy.sample.sample(merged, noise, *arguments, disable_pbar=True, seed=1)

    sample()
    return [
        ("check, nothing changed", lambda: lock.faults(merged), 50 * turns),
        ("check of the loaded weights", lambda: lock.not_computed(merged), 50 * turns),
        ("check, a later node added a patch", lambda: lock.faults(later), 50 * turns),
        ("20 steps of sampling", sample, turns),
    ]


def on_disk(turns: int, folder: Path) -> list[Row]:
    path, rows = folder / "large.safetensors", MEGABYTES // 10
    tensors = {
        f"layer.{n}.lora_up.weight": torch.full((rows, 2**18), float(n), dtype=torch.float16)
        for n in range(20)
    }
    save_module(path, tensors, {}, "safety")
    size = path.stat().st_size / 2**20
    return [
        (f"load and verify {size:.0f} MB", lambda: load_safety(path, "large"), turns),
        ("hashlib.sha256 of the same file", lambda: hashlib.sha256(path.read_bytes()), turns),
    ]


FLAGS = {"turns": 5}


def main(options) -> None:
    with tempfile.TemporaryDirectory() as folder:
        harness.head("what", "time")
        for rows in (at_sampling(options.turns), on_disk(options.turns, Path(folder))):
            for what, work, turns in rows:
                harness.row(what, f"{1e3 * harness.median(work, turns):.3f} ms")
