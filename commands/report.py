"""Report a safety LoRA: what it takes away, what it harms, what is left of it after tuning.

    python custom_nodes/modular-safety-lora report safety.safetensors --checkpoint C \\
        --concept-preset nudity-clothed --output FOLDER [--task-lora T[:STRENGTH]]...

Pictures are made by the base and with the safety LoRA and audited, and the network is measured. A
folder below FOLDER gets report.json, which the verb seal takes, report.html and the pictures, what
is counted in them blurred. The same command goes on after a crash; a run that is stopped writes a
report that is marked partial.
"""

import argparse
from pathlib import Path

from ..evaluation.prompt_set import Defaults
from ..host.comfyui import enter_comfyui
from ..host.sampling_settings import Sampling
from ..modules.files import load_safety, load_task
from ..reporting.settings import Asking
from .audit import add_rules, rules_of
from .audit_prompts import read_tasks
from .base import add_base, add_comfyui, load_base
from .flags import add_flags, taken
from .kinds import folder
from .language import add_language
from .terminal import Bar, close_bars

KINDS = (Asking, Sampling, Defaults)


def options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("safety", type=Path, metavar="SAFETY", help="the sealed safety LoRA")
    add_base(parser)
    add("--output", type=folder, required=True, help="the folder of the results")
    for name, words in (
        ("--task-lora", "a task LoRA that is merged beside it"),
        ("--on-top", "a task LoRA that was trained on top of the safe model"),
    ):
        help_ = f"{words}; may be repeated"
        add(name, action="append", default=[], metavar="FILE[:STRENGTH]", help=help_)
    add_flags(parser, *KINDS)
    add_rules(parser)
    add_comfyui(parser)
    add_language(parser)


def work(options: argparse.Namespace) -> None:
    asking, sampling, defaults = taken(options, *KINDS)
    rules, module = rules_of(options), load_safety(options.safety, options.safety.name)
    enter_comfyui(options.comfyui)
    from ..merge.entries import Task
    from ..reporting.models import Tuning
    from ..reporting.run import ReportJob, report

    def tasks(given: list[str]) -> list[Task]:
        found = read_tasks(given)
        return [Task(load_task(path, path.name), weight, weight) for path, weight in found]

    tuning = Tuning(tasks(options.task_lora), tasks(options.on_top))
    model, clip, vae = load_base(options)
    with Bar("Reporting", "steps") as bar:

        def progress(done: int, total: int, _) -> None:
            bar(done, total)

        job = ReportJob(asking, rules, sampling, defaults, options.output, tuning, progress)
        found = report(model, clip, vae, module, job)
    close_bars()
    print(f"{found.words}\n\nReport: {found.folder / 'report.html'}, report.json")
