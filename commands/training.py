"""What the two training verbs share: their flags, the run they start, the files it leaves."""

import argparse
import contextlib
import json
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..audit.presets import Preset, choose
from ..host.comfyui import enter_comfyui
from ..host.prompts import encode_texts, read_lines
from ..options.table import rows, values_of
from ..storage.whole import write_picture, write_text
from ..training.engine.processes import Share, enter
from ..training.keeping import Keeping
from ..training.settings import KINDS, Settings
from .base import add_base
from .kinds import file_named, whole_number
from .terminal import Bar

RESOLUTIONS = range(16, 4097)  # what latents of 8 pixels and patches of 2 can be made of


def add_options(parser: argparse.ArgumentParser, trainer: str) -> None:
    """What every run is asked, and a flag for each row of the table of options."""
    add = parser.add_argument
    add_base(parser)
    add(
        "--output",
        type=file_named(".safetensors"),
        required=True,
        help="the .safetensors file to write; chart and report go beside it",
    )
    add(
        "--comfyui",
        help="ComfyUI's folder; COMFYUI_PATH, or the one that this pack lies in, otherwise",
    )
    add(
        "--resolution",
        type=whole_number(RESOLUTIONS),
        default=512,
        help="pictures have about this many pixels squared",
    )
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


@dataclass(frozen=True)
class Started:
    """What a run asks for beside its settings, known before anything is loaded."""

    share: Share
    keeping: Keeping
    prompts: list[str]  # of previews
    rules: Preset


@contextlib.contextmanager
def started(options: argparse.Namespace, settings: Settings) -> Iterator[Started]:
    """Enter ComfyUI, and hold the names of what is written until it is."""
    share = enter()
    enter_comfyui(options.comfyui)
    from ..training.engine.starting import starting

    share.check(settings.batch_size)
    keeping = Keeping(**values_of(Keeping, vars(options)))
    prompts, rules = read_lines(options.preview_prompts), choose(options.preview_preset)
    how = {"resume": keeping.resume, "share": share, "beside": beside(options.output)}
    with starting(options.output, settings, **how):
        yield Started(share, keeping, prompts, rules)


def beside(output: Path) -> list[Path]:
    """The files beside a run's module: chart (.png) and report (.json)."""
    return [output.with_suffix(".png"), output.with_suffix(".json")]


def job(options: argparse.Namespace, clip, vae, start: Started):
    """The `TrainingJob` that the options ask for."""
    from ..training.engine.previews import Previews
    from ..training.engine.run import TrainingJob

    previews, keeping = None, start.keeping
    if start.prompts:
        previews = Previews(
            start.prompts,
            encode_texts(clip, start.prompts),
            vae,
            options.output.with_suffix(".previews"),
            **keeping.looks,
            seed=options.seed,
            rules=start.rules,
        )
    meter = Meter(options.steps, start.share.is_main)
    return TrainingJob(
        options.output, keeping.save_every, keeping.resume, meter, previews, share=start.share
    )


def finish(output: Path, result) -> None:
    """Keep chart and report beside the module, and say what was written."""
    if result is None:  # not the main process
        return
    chart, report = beside(output)
    write_picture(chart, result.plot)
    write_text(report, json.dumps(result.report, indent=1))
    progress = result.progress
    print(
        f"\nWrote {output} after {progress.step} steps"
        + (" (cancelled)." if progress.cancelled else ".")
    )
    print(f"Its sha256 is {result.module.sha256}. Chart and report: {chart}, {report.name}")


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
