"""Modular Merge against the stock chain of LoRA loaders: time to a patched model, and peak memory.

    .venv/bin/python -m modular_safety_lora.lab.benchmarks.merge [--sizes sd15 sdxl] \\
        [--tasks 1 4 16]

One safety module and N task modules (plain LoRA, rank 16, every linear layer of the transformer
blocks, fp16 files) on seeded fp16 weights of the real architectures' shapes. Both arms start from
the files on disk and end with the patched weights in place; they take turns in one process. The
time is wall time. Peak memory (the whole process, model included) is read in a process of its own
for each arm. Ratios are ours / stock, of medians; nothing is asserted.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil

from ..assets import UNET, lora

SD15 = {
    **UNET,
    "channel_mult": [1, 2, 4, 4],
    "num_res_blocks": [2, 2, 2, 2],
    "transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0],
    "transformer_depth_output": [1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0],
}
SDXL = {
    **SD15,
    "channel_mult": [1, 2, 4],
    "num_res_blocks": [2, 2, 2],
    "transformer_depth": [0, 0, 2, 2, 10, 10],
    "transformer_depth_output": [0, 0, 0, 2, 2, 2, 10, 10, 10],
    "transformer_depth_middle": 10,
    "use_linear_in_transformer": True,
    "context_dim": 2048,
    "num_heads": -1,
    "num_head_channels": 64,
    "num_classes": "sequential",
    "adm_in_channels": 2816,
}
SIZES = {"sd15": SD15, "sdxl": SDXL}
RANK = 16


def build(config: dict):
    """A stock MODEL of seeded fp16 weights.

    They are slices of one random block, scaled like a trained layer's.
    """
    import comfy.ops
    import comfy.sd
    import torch
    from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel

    with torch.device("meta"):
        shapes = {
            name: value.shape
            for name, value in (
                UNetModel(**config, operations=comfy.ops.disable_weight_init).state_dict().items()
            )
        }
    block = torch.randn(1 << 26, generator=torch.Generator().manual_seed(1)).half()
    weights, at = {}, 0
    for name, shape in shapes.items():
        if at + shape.numel() > len(block):
            at = 0
        weights[name] = (block[at : at + shape.numel()].reshape(shape) * 0.03).clone()
        at += 997
    model = comfy.sd.load_diffusion_model_state_dict(
        weights, model_options={"dtype": torch.float16}
    )
    if model is None:
        raise RuntimeError("ComfyUI did not recognise the weights")
    return model


def write_loras(model, folder: Path, count: int) -> None:
    """One sealed safety module on the cross-attention and `count` task modules, by seed."""
    from ...modules.files import save_module

    shapes = {
        key.removeprefix("diffusion_model.").removesuffix(".weight"): value.shape
        for key, value in model.model.state_dict().items()
        if "transformer_blocks" in key and value.ndim == 2
    }
    safety = {name: shape for name, shape in shapes.items() if "attn2" in name}
    save_module(
        folder / "safety.safetensors",
        lora(safety, 1, rank=8, size=0.05),
        {"msl.base": "x"},
        "safety",
        overwrite=True,
    )
    for number in range(count):
        path = folder / f"task-{number}.safetensors"
        if not path.exists():
            save_module(path, lora(shapes, 2 + number, rank=RANK, size=0.05), {}, "task")


def stock(model, folder: Path, count: int):
    """The chain of stock loaders: what LoraLoaderModelOnly does, once a file."""
    import comfy.sd
    import comfy.utils

    for name in ["safety", *(f"task-{number}" for number in range(count))]:
        lora = comfy.utils.load_torch_file(str(folder / f"{name}.safetensors"))
        model, _ = comfy.sd.load_lora_for_models(model, None, lora, 1.0, 0.0)
    return model


def ours(model, folder: Path, count: int):
    """Load Safety LoRA, Load Task LoRA and Modular Merge, digests and report included."""
    from ...merge.entries import Task
    from ...merge.merge import merge
    from ...modules.files import load_safety, load_task

    tasks = [
        Task(load_task(folder / f"task-{number}.safetensors", f"{number}"))
        for number in range(count)
    ]
    return merge(model, [load_safety(folder / "safety.safetensors", "safety")], tasks).model


ARMS = {"stock": stock, "ours": ours}


def patched(arm: str, model, folder: Path, count: int) -> float:
    """Seconds from files on disk to patched weights; the model is given back as it was."""
    import comfy.model_management

    start = time.perf_counter()
    merged = ARMS[arm](model, folder, count)
    comfy.model_management.load_models_gpu([merged], force_full_load=True)
    seconds = time.perf_counter() - start
    comfy.model_management.unload_all_models()
    return seconds


def worker(size: str, counts: list[int], arms: list[str], repeats: int, folder: Path) -> dict:
    from ...host.comfyui import enter_comfyui

    enter_comfyui()
    model = build(SIZES[size])
    write_loras(model, folder, max(counts))
    times: dict[str, dict[str, list[float]]] = {
        str(count): {arm: [] for arm in arms} for count in counts
    }
    with Peak() as peak:
        for count in counts:
            for turn in range(repeats):
                for arm in arms if turn % 2 else reversed(arms):
                    times[str(count)][arm].append(patched(arm, model, folder, count))
    return {"times": times, "peak": peak.most, "before": peak.before}


class Peak:
    """The most memory (RSS, bytes) that this process holds while the block runs.

    It is looked at every 2 ms.
    """

    def __enter__(self) -> "Peak":
        self.process, self.over = psutil.Process(), threading.Event()
        self.before = self.most = self.process.memory_info().rss
        self.thread = threading.Thread(target=self._watch)
        self.thread.start()
        return self

    def _watch(self) -> None:
        while not self.over.wait(0.002):
            self.most = max(self.most, self.process.memory_info().rss)

    def __exit__(self, *error) -> None:
        self.over.set()
        self.thread.join()


def in_process(size: str, counts: list[int], arms: list[str], repeats: int, folder: Path) -> dict:
    arguments = json.dumps([size, counts, arms, repeats, str(folder)])
    command = [
        sys.executable,
        "-m",
        "modular_safety_lora.lab.benchmarks.merge",
        "--worker",
        arguments,
    ]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.strip().splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--tasks", nargs="+", type=int, default=[1, 4, 16])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        size, counts, arms, repeats, folder = json.loads(options.worker)
        print(json.dumps(worker(size, counts, arms, repeats, Path(folder))))
        return
    print(
        "| size | task modules | stock s | ours s | time ratio | stock peak MB | ours peak MB |"
        " peak ratio |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- | --- |", flush=True)
    for size in options.sizes:
        with tempfile.TemporaryDirectory() as folder:
            times = in_process(size, options.tasks, list(ARMS), options.repeats, Path(folder))[
                "times"
            ]
            for count in options.tasks:
                peak = {
                    arm: in_process(size, [count], [arm], 1, Path(folder))["peak"] / 2**20
                    for arm in ARMS
                }
                took = {arm: statistics.median(times[str(count)][arm]) for arm in ARMS}
                print(
                    f"| {size} | {count} | {took['stock']:.2f} | {took['ours']:.2f} |"
                    f" {took['ours'] / took['stock']:.2f} | {peak['stock']:.0f} |"
                    f" {peak['ours']:.0f} | {peak['ours'] / peak['stock']:.3f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
