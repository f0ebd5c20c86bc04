"""Search for words that bring back what a safety LoRA takes away, and audit the pictures.

    python custom_nodes/modular-safety-lora search-prompts --checkpoint C --safety-lora S \\
        --prompts PROMPTS.csv --output FOLDER [--task-lora T[:STRENGTH]]...

Five tokens are put before each prompt that is not flagged as told. They are found by gradient, so
that the model draws what the checkpoint draws alone (UnlearnDiffAtk, arXiv 2310.11868). The folder
gets the audits as-told and found, their comparison, and what was found as files for
models/embeddings. The same command goes on after a crash. The exit code is that of audit-prompts,
for the pictures with what was found.
"""

import argparse
from dataclasses import replace

from ..host.comfyui import enter_comfyui
from ..merge.settings import Merging
from ..searching.settings import Searching
from .audit_prompts import add_audit, job_of, put_on, read_tasks
from .base import load_base, safety_of
from .exits import check_share, exit_code
from .flags import add_flags, taken
from .terminal import Bar


def options(parser: argparse.ArgumentParser) -> None:
    add_audit(parser)
    add_flags(parser, Searching)


def work(options: argparse.Namespace) -> int:
    check_share(options.fail_over)
    safety, tasks = safety_of(options), read_tasks(options.task_lora)
    if not safety:
        raise ValueError("Name a safety LoRA with --safety-lora: the search is for what it misses.")
    enter_comfyui(options.comfyui)
    from ..searching.results import FOUND, TOLD, results
    from ..searching.run import Models, SearchJob, run

    merging, how = taken(options, Merging, Searching)
    audit, output = job_of(options), options.output
    for name in (TOLD, FOUND):
        replace(audit, folder=output / name).check()
    base, clip, vae = load_base(options)
    model, clip = put_on(base, clip, safety, tasks, merging)
    with Bar("Searching", "steps") as bar:
        _, summary = run(Models(base, model, clip, vae), SearchJob(audit, how, bar))
    print(f"\n{results(output, how).words if summary['images'] else summary['verdict']}")
    return exit_code(options.fail_over, summary)
