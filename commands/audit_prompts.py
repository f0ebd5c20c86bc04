"""Run a prompt set through a checkpoint and audit the pictures as they come.

    python custom_nodes/modular-safety-lora audit-prompts --checkpoint C --prompts I2P.csv \\
        --output FOLDER [--safety-lora S]... [--task-lora T[:STRENGTH]]...

The checkpoint runs with or without safety and task LoRAs. The folder gets report.html, report.json
and audit.sqlite; no picture is kept unless --keep asks for it. The same command goes on after a
crash, and tries again what gave no picture. With --workers each process loads its own model, on the
CUDA devices by turns, and the results are those of one. The exit code is 0; 1 for an error; 2 when
--fail-over is given and a larger share is flagged, or a prompt gave no picture; 3 when no picture
was looked at.
"""

import argparse
import json
import math
from dataclasses import replace
from functools import partial
from pathlib import Path

from ..audit.about import in_short
from ..drawing.markdown import share, span
from ..evaluation.embedded import KEY
from ..evaluation.job import AuditJob, Kept
from ..evaluation.prompt_set import Defaults, Selection, read_prompts
from ..evaluation.protocols import Following, listed
from ..host.comfyui import comfyui_path, enter_comfyui
from ..host.sampling_settings import Sampling
from ..merge.settings import Merging
from ..modules.files import LoraFile, load_task
from .audit import add_rules, add_workers, check_workers, rules_of
from .base import add_base, add_comfyui, add_safety, load_base, loaded_of, safety_of
from .exits import check_share, exit_code
from .flags import add_flags, taken
from .kinds import folder
from .language import add_language
from .terminal import Bar

KINDS = (Merging, Sampling, Defaults, Selection, Kept)
DEFAULT = Merging()


def options(parser: argparse.ArgumentParser) -> None:
    add_audit(parser)
    add_workers(parser, 1)


def add_audit(parser: argparse.ArgumentParser) -> None:
    """The options that say what is audited and how; the search for prompts has them too."""
    add = parser.add_argument
    add_base(parser)
    add(
        "--prompts",
        type=Path,
        required=True,
        help="a CSV with I2P's columns, a .txt with one prompt per line, or a protocol's file",
    )
    add(
        "--protocols",
        action=_List,
        nargs=0,
        help="list the published protocols, with sources and the addresses of their prompts",
    )
    add("--output", type=folder, required=True, help="the folder of the results")
    add_comfyui(parser)
    add_safety(parser)
    add(
        "--task-lora",
        action="append",
        default=[],
        metavar="FILE[:STRENGTH]",
        help="a task LoRA; may be repeated",
    )
    add_flags(parser, *KINDS, Following)
    add(
        "--fail-over",
        type=float,
        metavar="RATE",
        help="exit code 2 when a larger share is flagged, or a prompt gave no picture",
    )
    add_rules(parser)
    add_language(parser)


class _List(argparse.Action):
    """Prints the protocols and ends, as --help does."""

    def __call__(self, parser, namespace, values, option_string=None):
        print(listed())
        parser.exit()


def work(options: argparse.Namespace) -> int:
    check_share(options.fail_over)
    check_workers(options)
    enter_comfyui(options.comfyui)
    from ..evaluation.run import report_again

    safety, tasks = safety_of(options), read_tasks(options.task_lora)
    loras = [] if safety else [_named(*each) for each in tasks]
    job = replace(job_of(options), loras=loras)
    job.check()
    job = replace(job, loaded=_told(options, tasks, job))
    summary = report_again(job) or _made(options, job)
    report = json.loads((job.folder / "report.json").read_text(encoding="utf-8"))
    rate, interval = share(summary["flagged_rate"]), span(summary["flagged_rate_95"])
    print(f"\n{in_short(report['about'])}")
    print(f"{summary['verdict']}: {rate} (95 %: {interval})")
    for line in summary.get("protocol", {}).get("said", ()):
        print(line)
    print(
        f"{summary['detector']} {summary['detector_version']} on {summary['provider']}, preset"
        f" {summary['preset']}"
    )
    print(f"Report: {options.output / 'report.html'}, report.json, audit.sqlite")
    return exit_code(options.fail_over, summary)


def _made(options: argparse.Namespace, job: AuditJob) -> dict:
    """Load the model and make what is missing, in this process or in others; the summary."""
    from ..evaluation.run import run
    from ..evaluation.shared import run_shared

    load = partial(loaded, options)
    if options.workers > 1 or options.ray:
        how = {"workers": options.workers, "ray": options.ray or ""}
        make = partial(run_shared, load, comfyui=str(comfyui_path(options.comfyui)), **how)
    else:
        make = partial(run, *load())
    with Bar("Auditing", "pictures") as bar:

        def on_picture(done: int, _) -> None:
            bar(done, len(job.prompts))

        return make(replace(job, on_picture=on_picture))


def _told(options: argparse.Namespace, tasks: list[tuple[Path, float]], job: AuditJob) -> dict:
    """Which files and settings the model is made of; nothing where one is absent."""
    from ..host.comfyui import embedding_folders
    from ..host.named import digests_of

    (how,) = taken(options, Merging)
    told = loaded_of(options, *(path for path, _ in tasks))
    named = digests_of(job.texts, embedding_folders())
    more = {KEY: named} if named else {}
    return told and told | {"strengths": [each for _, each in tasks], "merge": vars(how)} | more


def job_of(options: argparse.Namespace) -> AuditJob:
    """The audit that the options ask for, with what their protocol fills."""
    (following,) = taken(options, Following)
    values, changes = following.filled(vars(options), getattr(options, "given", ()))
    filled = argparse.Namespace(**values)
    sampling, defaults, selection, kept = taken(filled, Sampling, Defaults, Selection, Kept)
    prompts = read_prompts(options.prompts, defaults, selection, following.shape)
    rules = rules_of(filled, following.check_preset)
    protocol = following.told(prompts, values, changes)
    told = options.prompts.stem, prompts, rules, sampling, options.output, kept.keep
    return AuditJob(*told, protocol=protocol)


def loaded(options: argparse.Namespace):
    """(MODEL, CLIP, VAE) that the options ask for, in whichever process."""
    (how,) = taken(options, Merging)
    model, clip, vae = load_base(options)
    safety, tasks = safety_of(options), read_tasks(options.task_lora)
    return *put_on(model, clip, safety, tasks, how), vae


def read_tasks(tasks: list[str]) -> list[tuple[Path, float]]:
    """Files and strengths of the task LoRAs, which are read to be refused."""
    strengths = [_strength(text) for text in tasks]
    for path, _ in strengths:
        load_task(path, path.name)
    return strengths


def _named(path: Path, strength: float) -> dict:
    """What a report says of a LoRA that no merge put on."""
    digest = load_task(path, path.name).sha256
    return {"name": path.name, "role": "task", "sha256": digest, "strength": strength}


def put_on(
    model, clip, safety: list[LoraFile], tasks: list[tuple[Path, float]], how: Merging = DEFAULT
):
    """(model, clip) with the LoRAs on: by Modular Merge beside safety LoRAs, else by stock."""
    import comfy.sd
    import comfy.utils

    from ..merge.entries import Task
    from ..merge.merge import merge

    if safety:
        added = [Task(load_task(path, path.name), strength, strength) for path, strength in tasks]
        merged = merge(model, safety, added, clip, **vars(how))
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
        raise ValueError(
            f"--task-lora {text}: the strength is {strength}; it must be a finite number."
        )
    return path, number
