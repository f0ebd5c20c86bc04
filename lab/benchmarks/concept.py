"""What measuring on the concept's prompts adds to a merge.

It is measured without the text encoder's own run and with it.

    .venv/bin/python -m modular_safety_lora.lab.benchmarks concept [--sizes sd15 sdxl] [--prompts 4]

One safety module and N task modules as in merge.py, with a seeded text encoder of the real shape;
from files on disk to patched weights. Both arms have a text encoder connected, one safety file
names prompts and the other none; they take turns in one process. Medians; nothing is asserted.
Reading the files and patching the weights, which are the same in both arms and vary most, are taken
from both together. The look at the network, which needs prompts too, is left out: function.py times
it. Each turn encodes its prompts as the first merge of a session does.
"""

import json
import statistics
import tempfile
import time
import uuid
from functools import partial
from pathlib import Path

import comfy.model_management

from ...merge import concept
from ...merge import merge as merging
from ...merge.in_function import InFunction
from ...modules.concepts import prompts_text
from ...modules.files import load_safety, save_module
from . import harness, models


def seal(folder: Path, count: int) -> None:
    """The safety module with prompts, or an empty list of them, beside the one that is there."""
    prompts = [f"a prompt of the concept, number {number}" for number in range(count)]
    module = load_safety(folder / "safety.safetensors", "safety")
    about = {"msl.base": "x", "msl.prompts": prompts_text(prompts)}
    save_module(folder / f"safety-{count}.safetensors", module.tensors, about, "safety")


def timed(model, clip, folder: Path, count: int, prompts: int) -> dict[str, float]:
    """Seconds of a merge without the text encoder's run, of that run, and of files and patching."""
    clip = clip.clone()
    clip.patcher.patches_uuid = uuid.uuid4()  # else its prompts are known from the turn before
    with (
        harness.watched(concept, "encoded") as encoding,
        harness.replaced(merging, "in_function", lambda *_: InFunction()),
    ):
        start = time.perf_counter()
        safety, tasks = models.load_loras(folder, count, f"safety-{prompts}")
        read = time.perf_counter()
        merged = merging.merge(model, [safety], tasks, clip)
        made = time.perf_counter()
    comfy.model_management.load_models_gpu([merged.model], force_full_load=True)
    rest = time.perf_counter() - made + read - start
    comfy.model_management.unload_all_models()
    return {"merge": made - read - encoding.seconds, "encoder": encoding.seconds, "rest": rest}


SIZES = list(models.SIZES)
FLAGS = {
    "sizes": harness.several(SIZES, choices=SIZES),
    "tasks": harness.several([1, 4]),
    "prompts": 4,
    "repeats": 9,
}


def main(options) -> None:
    for size in options.sizes:
        model, clip = models.build(size), models.text_encoder(size)
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            models.write_loras(model, folder, max(options.tasks))
            for prompts in (0, options.prompts):
                seal(folder, prompts)
                timed(model, clip, folder, 1, prompts)
            for count in options.tasks:
                arms = {
                    prompts: partial(timed, model, clip, folder, count, prompts)
                    for prompts in (0, options.prompts)
                }
                found = summary(*harness.in_turns(arms, options.repeats).values())
                print(json.dumps({"size": size, "tasks": count} | found), flush=True)


def summary(without: list[dict], with_it: list[dict]) -> dict[str, float]:
    before, after = (statistics.median(each["merge"] for each in arm) for arm in (without, with_it))
    rest = statistics.median(each["rest"] for each in (*without, *with_it))
    row = {"merge_s": before, "merge_measured_s": after, "files_and_patching_s": rest}
    row |= {"text_encoder_s": statistics.median(each["encoder"] for each in with_it)}
    return {name: round(value, 3) for name, value in row.items()} | {
        "ratio": round((after + rest) / (before + rest), 3)
    }
