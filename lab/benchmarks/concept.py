"""What measuring on the concept's prompts adds to a merge.

It is measured without the text encoder's own run and with it.

    .venv/bin/python -m modular_safety_lora.lab.benchmarks.concept [--sizes sd15 sdxl] [--prompts 4]

One safety module and N task modules as in merge.py, with a seeded text encoder of the real shape;
from files on disk to patched weights. Both arms have a text encoder connected, one safety file
names prompts and the other none; they take turns in one process. Medians; nothing is asserted.
Reading the files and patching the weights, which are the same in both arms and vary most, are taken
from both together.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

from .merge import SIZES, build, write_loras


def text_encoder(size: str):
    """A CLIP of the real architecture with seeded weights."""
    import comfy.sd
    import comfy.supported_models
    import torch

    family = {"sd15": comfy.supported_models.SD15, "sdxl": comfy.supported_models.SDXL}[size]
    clip = comfy.sd.CLIP(family({}).clip_target())
    generator = torch.Generator().manual_seed(1)
    for value in clip.cond_stage_model.parameters():
        value.data = (torch.randn(value.shape, generator=generator) * 0.02).to(value.dtype)
    return clip


def seal(folder: Path, prompts: list[str]) -> None:
    """The safety module with prompts, or an empty list of them, beside the one that is there."""
    from ...modules.concepts import prompts_text
    from ...modules.files import load_safety, save_module

    module = load_safety(folder / "safety.safetensors", "safety")
    about = {"msl.base": "x", "msl.prompts": prompts_text(prompts)}
    save_module(
        folder / f"safety-{len(prompts)}.safetensors",
        module.tensors,
        about,
        "safety",
        overwrite=True,
    )


def timed(model, clip, folder: Path, count: int, prompts: int) -> dict[str, float]:
    """Seconds of a merge without the text encoder's run, of that run, and of files and patching."""
    import comfy.model_management

    from ...merge import concept
    from ...merge.entries import Task
    from ...merge.merge import merge
    from ...modules.files import load_safety, load_task

    encoding, encode = [], concept.encoded

    def watched(*args):
        began = time.perf_counter()
        found = encode(*args)
        encoding.append(time.perf_counter() - began)
        return found

    concept.encoded = watched
    start = time.perf_counter()
    try:
        tasks = [
            Task(load_task(folder / f"task-{number}.safetensors", f"{number}"))
            for number in range(count)
        ]
        safety = load_safety(folder / f"safety-{prompts}.safetensors", "safety")
        read = time.perf_counter()
        merged = merge(model, [safety], tasks, clip)
        made = time.perf_counter()
    finally:
        concept.encoded = encode
    comfy.model_management.load_models_gpu([merged.model], force_full_load=True)
    rest = time.perf_counter() - made + read - start
    comfy.model_management.unload_all_models()
    return {"merge": made - read - sum(encoding), "text_encoder": sum(encoding), "rest": rest}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--tasks", nargs="+", type=int, default=[1, 4])
    parser.add_argument("--prompts", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=9)
    options = parser.parse_args()
    from ...host.comfyui import enter_comfyui

    enter_comfyui()
    for size in options.sizes:
        model, clip = build(SIZES[size]), text_encoder(size)
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            write_loras(model, folder, max(options.tasks))
            for prompts in (0, options.prompts):
                seal(
                    folder,
                    [f"a prompt of the concept, number {number}" for number in range(prompts)],
                )
                timed(model, clip, folder, 1, prompts)
            for count in options.tasks:
                found: dict[int, list[dict]] = {0: [], options.prompts: []}
                for turn in range(options.repeats):
                    for prompts in found if turn % 2 else reversed(found):
                        found[prompts].append(timed(model, clip, folder, count, prompts))
                print(
                    json.dumps({"size": size, "tasks": count} | summary(*found.values())),
                    flush=True,
                )


def summary(without: list[dict], with_it: list[dict]) -> dict[str, float]:
    before, after = (statistics.median(each["merge"] for each in arm) for arm in (without, with_it))
    rest = statistics.median(each["rest"] for each in (*without, *with_it))
    row = {"merge_s": before, "merge_measured_s": after, "files_and_patching_s": rest}
    row |= {"text_encoder_s": statistics.median(each["text_encoder"] for each in with_it)}
    return {name: round(value, 3) for name, value in row.items()} | {
        "ratio": round((after + rest) / (before + rest), 3)
    }


if __name__ == "__main__":
    main()
