"""What the two training verbs share: the settings they take, the run that they ask for, and what is left of it."""

import argparse
import json
import signal
from pathlib import Path

from ..audit.presets import choose
from ..host.comfyui import enter_comfyui
from ..host.prompts import encode_texts, lines_of
from ..training.engine.processes import Share, enter
from ..training.settings import OPTIMIZERS, PRECISIONS, SCHEDULES, SHARED
from .terminal import Bar


def add_options(parser: argparse.ArgumentParser) -> None:
    """The settings of both runs."""
    add = parser.add_argument
    add("--checkpoint", type=Path, required=True, help="the base model, a ComfyUI checkpoint")
    add("--output", type=Path, required=True, help="the .safetensors file to write; chart and report go beside it")
    add("--comfyui", help="ComfyUI's folder; COMFYUI_PATH otherwise")
    add("--steps", type=int, default=1000, help="optimizer steps")
    add("--rank", type=int, default=4, help="rank of the LoRA")
    add("--alpha", type=float, help="alpha of the LoRA; the rank otherwise")
    add("--optimizer", choices=OPTIMIZERS, default="adamw", help="adamw8bit needs bitsandbytes, prodigy needs prodigyopt")
    add("--learning-rate", type=float, help="1e-4 otherwise, and 1 for prodigy, which finds the step size itself")
    add("--weight-decay", type=float, default=0.01, help="weight decay of the optimizer")
    add("--schedule", choices=SCHEDULES, default="constant", help="after the warm-up")
    add("--warmup", type=int, default=0, help="steps of linear warm-up")
    add("--clip-norm", type=float, default=1.0, help="largest norm of the gradient; 0 for any")
    add("--batch-size", type=int, default=1, help="pictures in a batch, over all processes")
    add("--accumulate", type=int, default=1, help="batches in a step")
    add("--resolution", type=int, default=512, help="pictures have about this many pixels squared")
    add("--precision", choices=PRECISIONS, default="auto", help="of the network; auto is fp32 on the CPU, bf16 on a GPU")
    add("--gradient-checkpointing", action="store_true", help="less memory for about a third more time")
    add("--seed", type=int, default=0, help="seed of everything random")
    add("--save-every", type=int, default=0, help="steps between checkpoints to resume from")
    add("--resume", action="store_true", help="go on from the checkpoint beside the output, if there is one")
    add("--preview-prompts", type=Path, help="prompts of preview pictures, a line each")
    add("--preview-every", type=int, default=100, help="steps between previews")
    add("--preview-preset", default="strict", help="preset of the audit of the previews")


def shared_settings(options: argparse.Namespace) -> dict:
    """The values of `Settings` that both command lines take."""
    rate = options.learning_rate or (1.0 if options.optimizer == "prodigy" else 1e-4)
    return {name: getattr(options, name) for name in SHARED} | {"learning_rate": rate}


def start(options: argparse.Namespace) -> Share:
    """Enter ComfyUI; this process's share of the run."""
    share = enter()
    enter_comfyui(options.comfyui)
    share.check(options.batch_size)
    return share


def read_prompts(file: Path | None) -> list[str]:
    """The lines of a prompt file that are not empty; none without a file."""
    return [] if file is None else lines_of(file.read_text(encoding="utf-8"))


def job(options: argparse.Namespace, clip, vae, share: Share):
    """The `Job` that the options ask for."""
    from ..training.engine.previews import Previews
    from ..training.engine.run import Job

    prompts, previews = read_prompts(options.preview_prompts), None
    if prompts:
        previews = Previews(
            prompts,
            encode_texts(clip, prompts),
            vae,
            options.output.with_suffix(".previews"),
            options.preview_every,
            options.resolution,
            seed=options.seed,
            rules=choose(options.preview_preset),
        )
    meter = Meter(options.steps, share.is_main)
    return Job(options.output, options.save_every, options.resume, meter, previews, share=share)


def finish(output: Path, result) -> None:
    """Keep chart and report beside the module, and say what was written."""
    if result is None:  # not the main process
        return
    result.plot.save(output.with_suffix(".png"))
    output.with_suffix(".json").write_text(json.dumps(result.report, indent=1), encoding="utf-8")
    progress = result.progress
    print(f"\nWrote {output} after {progress.step} steps" + (" (cancelled)." if progress.cancelled else "."))
    print(f"Its sha256 is {result.module.sha256}. Chart and report: {output.with_suffix('.png')}, {output.stem}.json")


class Meter:
    """A bar of steps with the loss; Ctrl-C ends training and keeps what was trained."""

    def __init__(self, steps: int, shown: bool = True):
        self.steps, self.bar, self.go_on = steps, Bar("Training", "steps", steps, shown), True
        signal.signal(signal.SIGINT, self._cancel)

    def _cancel(self, *_) -> None:
        self.go_on = False

    def __call__(self, progress) -> bool:
        if progress.losses:
            self.bar.set_postfix({name: f"{value:.4f}" for name, value in progress.losses[-1].items()}, refresh=False)
        self.bar(progress.step, self.steps)
        return self.go_on
