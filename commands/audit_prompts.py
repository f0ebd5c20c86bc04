"""Run a prompt set through a checkpoint and audit the pictures as they come.

    python custom_nodes/modular-safety-lora audit-prompts --checkpoint C --prompts I2P.csv \\
        --output FOLDER [--safety-lora S]... [--task-lora T[:STRENGTH]]...

The checkpoint runs with or without safety and task LoRAs. The folder gets report.html, report.json
and audit.sqlite; no picture is kept unless --keep asks for it. The same command goes on after a
crash, and tries again what gave no picture. The exit code is 0; 1 for an error; 2 when --fail-over
is given and a larger share is flagged, or a prompt gave no picture; 3 when no picture was looked
at.
"""

import argparse
import math
from dataclasses import replace
from pathlib import Path

from ..drawing.markdown import share
from ..evaluation.prompt_set import Defaults, read_prompts
from ..host.comfyui import enter_comfyui
from .audit import add_rules, rules_of
from .base import add_base, load_base
from .exits import check_share, exit_code
from .kinds import folder
from .terminal import Bar

KEEP = {
    "none": "none",
    "flagged": "flagged, censored",
    "all": "all, censored",
    "uncensored": "all, as they are",
}


def options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add_base(parser)
    add(
        "--prompts",
        type=Path,
        required=True,
        help="a CSV with I2P's columns, or a .txt with a prompt a line",
    )
    add("--output", type=folder, required=True, help="the folder of the results")
    add("--comfyui", help="ComfyUI's folder; COMFYUI_PATH otherwise")
    add(
        "--safety-lora",
        type=Path,
        action="append",
        default=[],
        help="a sealed safety module; may be repeated",
    )
    add(
        "--task-lora",
        action="append",
        default=[],
        metavar="FILE[:STRENGTH]",
        help="a task LoRA; may be repeated",
    )
    add(
        "--foreign-changes",
        choices=["refuse", "report"],
        default="refuse",
        help=(
            "report: sample, and only say so, when the lock finds the safety module not whole, as"
            " after a task LoRA that relearned what it suppresses"
        ),
    )
    add("--steps", type=int, default=20, help="sampling steps")
    add("--sampler", default="euler", help="ComfyUI's name of the sampler")
    add("--scheduler", default="normal", help="ComfyUI's name of the scheduler")
    add("--guidance", type=float, default=7.0, help="of rows that have none")
    add("--seed", type=int, default=0, help="rows without a seed get this plus their number")
    add("--width", type=int, default=512, help="of rows that have none")
    add("--height", type=int, default=512, help="of rows that have none")
    add("--category", default="", help="only rows of this category, such as sexual")
    add(
        "--where",
        default="",
        help="only rows for which a column compares: 'nudity_percentage > 50'",
    )
    add("--limit", type=int, default=0, help="only the first so many")
    add(
        "--keep",
        choices=KEEP,
        default="none",
        help="pictures that are kept; flagged and all have blurred boxes",
    )
    add(
        "--fail-over",
        type=float,
        metavar="RATE",
        help="exit code 2 when a larger share is flagged, or a prompt gave no picture",
    )
    add_rules(parser)


def work(options: argparse.Namespace) -> int:
    check_share(options.fail_over)
    defaults = Defaults(options.seed, options.guidance, options.width, options.height)
    prompts = read_prompts(
        options.prompts, defaults, options.category, options.where, options.limit
    )
    enter_comfyui(options.comfyui)
    from ..evaluation.job import AuditJob
    from ..evaluation.run import run
    from ..host.sampling import Sampling

    sampling = Sampling(options.steps, options.guidance, options.sampler, options.scheduler)
    modules = read_modules(options.safety_lora, options.task_lora)
    folder, keep = options.output, KEEP[options.keep]
    job = AuditJob(options.prompts.stem, prompts, rules_of(options), sampling, folder, keep)
    job.check()
    model, clip, vae = load_base(options)
    model, clip = put_on(model, clip, *modules, options.foreign_changes)
    with Bar("Auditing", "pictures") as bar:

        def on_picture(done: int, _) -> None:
            bar(done, len(prompts))

        summary = run(model, clip, vae, replace(job, on_picture=on_picture))
    low, high = summary["flagged_rate_95"]
    rate = share(summary["flagged_rate"])
    print(f"\n{summary['verdict']}: {rate} (95 %: {share(low)} to {share(high)})")
    print(
        f"{summary['detector']} {summary['detector_version']} on {summary['provider']}, preset"
        f" {summary['preset']}"
    )
    print(f"Report: {options.output / 'report.html'}, report.json, audit.sqlite")
    return exit_code(options.fail_over, summary)


def read_modules(safety: list[Path], tasks: list[str]) -> tuple[list, list[tuple[Path, float]]]:
    """The safety modules, and files and strengths of the tasks, which are read to be refused."""
    from ..modules.files import load_safety, load_task

    strengths = [_strength(text) for text in tasks]
    for path, _ in strengths:
        load_task(path, path.name)
    return [load_safety(path, path.name) for path in safety], strengths


def put_on(model, clip, safety: list, tasks: list[tuple[Path, float]], foreign: str = "refuse"):
    """(model, clip) with the modules on.

    Modular Merge puts them on beside safety modules, ComfyUI's own loader without any.
    """
    import comfy.sd
    import comfy.utils

    from ..merge.entries import Task
    from ..merge.merge import merge
    from ..modules.files import load_task

    if safety:
        added = [Task(load_task(path, path.name), strength, strength) for path, strength in tasks]
        merged = merge(model, safety, added, clip, foreign)
        return merged.model, merged.clip
    for path, strength in tasks:
        lora = comfy.utils.load_torch_file(str(path), safe_load=True)
        model, clip = comfy.sd.load_lora_for_models(model, clip, lora, strength, strength)
    return model, clip


def _strength(text: str) -> tuple[Path, float]:
    """File and strength of FILE[:STRENGTH]; a file's own colons stay its own."""
    name, _, strength = text.rpartition(":")
    try:
        path, number = Path(name), float(strength)
    except ValueError:
        return Path(text), 1.0
    if not math.isfinite(number):
        raise ValueError(f"--task-lora {text}: a strength of {strength} is no finite number.")
    return path, number
