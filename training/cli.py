"""What the two command lines share: the settings they take, the loaded checkpoint, progress, and one-line errors."""

import argparse
import json
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from ..audit.presets import choose
from ..modular.host import enter_comfyui
from .clock import Clock
from .processes import Share, enter
from .prompts import encode_texts, lines_of
from .settings import OPTIMIZERS, PRECISIONS, SCHEDULES, SHARED


def parser(name: str, description: str) -> argparse.ArgumentParser:
    """A parser with the settings of both runs."""
    made = argparse.ArgumentParser(
        prog=f"python -m modular_safety_lora.training.{name}",
        description=description,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = made.add_argument
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
    return made


def shared_settings(options: argparse.Namespace) -> dict:
    """The values of `Settings` that both command lines take."""
    rate = options.learning_rate or (1.0 if options.optimizer == "prodigy" else 1e-4)
    return {name: getattr(options, name) for name in SHARED} | {"learning_rate": rate}


def run(name: str, options: argparse.Namespace, work: Callable[[argparse.Namespace, Share], None]) -> int:
    """Enter ComfyUI and do the work; a failure is one line on stderr and exit code 1."""
    share = enter()
    enter_comfyui(options.comfyui)
    try:
        share.check(options.batch_size)
        work(options, share)
    except (ValueError, OSError, RuntimeError) as error:
        print(f"\n{name}: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    return 0


def load_checkpoint(path: Path):
    """(MODEL, CLIP, VAE) of a checkpoint, by ComfyUI's own loader."""
    import comfy.sd

    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such checkpoint.")
    return comfy.sd.load_checkpoint_guess_config(str(path))[:3]


def read_prompts(file: Path | None) -> list[str]:
    """The lines of a prompt file that are not empty; none without a file."""
    return [] if file is None else lines_of(file.read_text(encoding="utf-8"))


def job(options: argparse.Namespace, clip, vae, share: Share):
    """The `Job` that the options ask for."""
    from .previews import Previews
    from .run import Job

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


def counter(what: str, speaks: bool = True) -> Callable[[int, int], None]:
    """Progress of a count on one line of the terminal."""

    def show(done: int, total: int) -> None:
        if speaks:
            print(f"\r{what}: {done} of {total}", end="\n" if done == total else "", flush=True)

    return show


class Meter:
    """Step, loss and time left on one line; Ctrl-C ends training and keeps what was trained."""

    def __init__(self, steps: int, speaks: bool = True):
        self.clock, self.speaks, self.go_on = Clock(steps), speaks, True
        signal.signal(signal.SIGINT, self._cancel)

    def _cancel(self, *_) -> None:
        self.go_on = False

    def __call__(self, progress) -> bool:
        line = self.clock.line(progress)
        if self.speaks:
            print(f"\r{line:<90}", end="", flush=True)
        return self.go_on
