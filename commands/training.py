"""What the two training verbs share.

The settings they take, the run that they ask for, and what is left of it.
"""

import argparse
import json
import signal
from pathlib import Path

from ..audit.presets import choose
from ..host.comfyui import enter_comfyui
from ..host.prompts import encode_texts, read_lines
from ..storage.whole import write_text
from ..training.engine.processes import Share, enter
from ..training.keeping import Keeping
from ..training.options import rows, values_of
from ..training.settings import KINDS
from .base import add_base
from .terminal import Bar


def add_options(parser: argparse.ArgumentParser, trainer: str) -> None:
    """What every run is asked, and a flag for each row of the table of options."""
    add = parser.add_argument
    add_base(parser)
    add(
        "--output",
        type=Path,
        required=True,
        help="the .safetensors file to write; chart and report go beside it",
    )
    add(
        "--comfyui",
        help="ComfyUI's folder; COMFYUI_PATH, or the one that this pack lies in, otherwise",
    )
    add("--resolution", type=int, default=512, help="pictures have about this many pixels squared")
    add(
        "--preview-prompts",
        type=Path,
        metavar="FILE",
        help="prompts of preview pictures, a line each",
    )
    add("--preview-preset", default="strict", help="preset of the audit of the previews")
    for row in rows(*KINDS, of=trainer).values():
        words = f"{row.words.removesuffix('.')}{f', {row.other}' if row.other else ''}".replace(
            "%", "%%"
        )
        if isinstance(row.default, bool):
            add(row.flag, action=argparse.BooleanOptionalAction, default=row.default, help=words)
        elif row.choices and not row.other:
            add(row.flag, choices=list(row.choices), default=row.default, help=words)
        else:
            add(
                row.flag,
                type=type(row.default),
                default=row.default,
                metavar=type(row.default).__name__.upper(),
                help=words,
            )


def start(options: argparse.Namespace) -> Share:
    """Enter ComfyUI; this process's share of the run."""
    share = enter()
    enter_comfyui(options.comfyui)
    share.check(options.batch_size)
    return share


def job(options: argparse.Namespace, clip, vae, share: Share):
    """The `TrainingJob` that the options ask for."""
    from ..training.engine.previews import Previews
    from ..training.engine.run import TrainingJob

    prompts, previews = read_lines(options.preview_prompts), None
    keeping = Keeping(**values_of(Keeping, vars(options)))
    if prompts:
        previews = Previews(
            prompts,
            encode_texts(clip, prompts),
            vae,
            options.output.with_suffix(".previews"),
            **keeping.looks,
            seed=options.seed,
            rules=choose(options.preview_preset),
        )
    meter = Meter(options.steps, share.is_main)
    return TrainingJob(
        options.output, keeping.save_every, keeping.resume, meter, previews, share=share
    )


def finish(output: Path, result) -> None:
    """Keep chart and report beside the module, and say what was written."""
    if result is None:  # not the main process
        return
    result.plot.save(output.with_suffix(".png"))
    write_text(output.with_suffix(".json"), json.dumps(result.report, indent=1))
    progress = result.progress
    print(
        f"\nWrote {output} after {progress.step} steps"
        + (" (cancelled)." if progress.cancelled else ".")
    )
    print(
        f"Its sha256 is {result.module.sha256}. Chart and report: {output.with_suffix('.png')},"
        f" {output.stem}.json"
    )


class Meter:
    """A bar of steps with the loss; Ctrl-C ends training and keeps what was trained."""

    def __init__(self, steps: int, shown: bool = True):
        self.steps, self.bar, self.go_on = steps, Bar("Training", "steps", steps, shown), True
        signal.signal(signal.SIGINT, self._cancel)

    def _cancel(self, *_) -> None:
        self.go_on = False

    def __call__(self, progress) -> bool:
        if progress.losses:
            self.bar.set_postfix(
                {name: f"{value:.4f}" for name, value in progress.losses[-1].items()}, refresh=False
            )
        self.bar(progress.step, self.steps)
        return self.go_on
