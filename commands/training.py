"""What the two training verbs share: their flags, the run they start, the files it leaves."""

import argparse
import contextlib
import json
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..audit.counting import Preset
from ..host.comfyui import enter_comfyui
from ..options.words import amount
from ..storage.whole import write_picture, write_text
from ..training.engine.processes import Share, enter
from ..training.keeping import Keeping
from ..training.settings import KINDS, Settings
from .base import add_base, add_comfyui
from .flags import add_flags, taken
from .kinds import file_named
from .terminal import Bar


def add_options(parser: argparse.ArgumentParser, trainer: str, *kinds: type) -> None:
    """What every run is asked, and a flag for each row of all runs and of `kinds`."""
    add = parser.add_argument
    add_base(parser)
    add(
        "--output",
        type=file_named(".safetensors"),
        required=True,
        help="the .safetensors file to write; chart and report go beside it",
    )
    add_comfyui(parser)
    add_flags(parser, *KINDS, *kinds, of=trainer)


@dataclass(frozen=True)
class Started:
    """What a run asks for beside its settings, known before anything is loaded."""

    share: Share
    keeping: Keeping
    preset: Preset  # of previews
    steps: int

    def say(self, warning: str) -> None:
        """Print what is to be known before it trains, once for all processes."""
        if self.share.is_main:
            print(f"Warning: {warning}", file=sys.stderr, flush=True)


@contextlib.contextmanager
def started(options: argparse.Namespace, settings: Settings) -> Iterator[Started]:
    """Enter ComfyUI, and hold the names of what is written until it is."""
    share = enter()
    enter_comfyui(options.comfyui)
    from ..training.engine.starting import starting

    share.check(settings.batch_size)
    (keeping,) = taken(options, Keeping)
    preset = keeping.preset()
    how = {"resume": keeping.resume, "share": share, "beside": beside(options.output)}
    with starting(options.output, settings, **how):
        yield Started(share, keeping, preset, settings.steps)


def beside(output: Path) -> list[Path]:
    """The files beside a run's LoRA: chart (.png) and report (.json)."""
    return [output.with_suffix(".png"), output.with_suffix(".json")]


def job(options: argparse.Namespace, clip, vae, start: Started):
    """The `TrainingJob` that the options ask for."""
    from ..training.engine.job import TrainingJob
    from ..training.engine.previews import previews_of

    keeping, folder = start.keeping, options.output.with_suffix(".previews")
    previews = previews_of(keeping, start.preset, (clip, vae), folder, options.seed)
    meter = Meter(start.steps, start.share.is_main)
    return TrainingJob(
        options.output, keeping.save_every, keeping.resume, meter, previews, share=start.share
    )


def finish(output: Path, result) -> None:
    """Keep chart and report beside the LoRA, and say what was written."""
    if result is None:  # not the main process
        return
    chart, report = beside(output)
    write_picture(chart, result.plot)
    write_text(report, json.dumps(result.report, indent=1))
    progress = result.progress
    print(
        f"\nWrote {output} after {amount(progress.step, 'step')}"
        + (" (cancelled)." if progress.cancelled else ".")
    )
    print(f"Its sha256 is {result.module.sha256}. Chart and report: {chart}, {report.name}")


class Meter:
    """A bar of steps with the loss; Ctrl-C ends training and keeps what was trained."""

    def __init__(self, steps: int, shown: bool = True):
        self.steps, self.bar, self.go_on = steps, Bar("Training", "steps", steps, shown=shown), True
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
