"""What the two command lines share: the settings they take, the loaded checkpoint, progress, and one-line errors."""

import argparse
import signal
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from .host import enter_comfyui


def parser(name: str, description: str) -> argparse.ArgumentParser:
    """A parser with the settings of both runs."""
    made = argparse.ArgumentParser(
        prog=f"python -m modular_safety_lora.training.{name}",
        description=description,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    made.add_argument("--checkpoint", type=Path, required=True, help="the base model, a ComfyUI checkpoint")
    made.add_argument("--output", type=Path, required=True, help="the .safetensors file to write")
    made.add_argument("--comfyui", help="ComfyUI's folder; COMFYUI_PATH otherwise")
    made.add_argument("--steps", type=int, default=1000, help="optimizer steps")
    made.add_argument("--rank", type=int, default=4, help="rank of the LoRA")
    made.add_argument("--alpha", type=float, help="alpha of the LoRA; the rank otherwise")
    made.add_argument("--learning-rate", type=float, default=1e-4, help="learning rate of AdamW")
    made.add_argument("--schedule", choices=["constant", "linear", "cosine"], default="constant", help="after the warm-up")
    made.add_argument("--warmup", type=int, default=0, help="steps of linear warm-up")
    made.add_argument("--batch-size", type=int, default=1, help="pictures in a batch")
    made.add_argument("--accumulate", type=int, default=1, help="batches in a step")
    made.add_argument("--resolution", type=int, default=512, help="pictures have about this many pixels squared")
    made.add_argument("--seed", type=int, default=0, help="seed of everything random")
    made.add_argument("--save-every", type=int, default=0, help="steps between checkpoints to resume from")
    made.add_argument("--resume", action="store_true", help="go on from the checkpoint beside the output, if there is one")
    return made


SHARED = ("steps", "batch_size", "accumulate", "learning_rate", "schedule", "warmup", "seed")


def shared_settings(options: argparse.Namespace) -> dict:
    """The values of `Settings` that both command lines take."""
    return {name: getattr(options, name) for name in SHARED}


def run(name: str, options: argparse.Namespace, work: Callable[[argparse.Namespace], None]) -> int:
    """Enter ComfyUI and do the work; a failure is one line on stderr and exit code 1."""
    enter_comfyui(options.comfyui)
    try:
        work(options)
    except (ValueError, OSError, RuntimeError) as error:
        print(f"{name}: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    return 0


def load_checkpoint(path: Path):
    """(MODEL, CLIP, VAE) of a checkpoint, by ComfyUI's own loader."""
    import comfy.sd

    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such checkpoint.")
    return comfy.sd.load_checkpoint_guess_config(str(path))[:3]


def encode_texts(clip, texts: Iterable[str]) -> dict[str, list]:
    """The conditioning of every text, and of the empty one, each once."""
    import torch

    with torch.no_grad():
        return {text: clip.encode_from_tokens_scheduled(clip.tokenize(text)) for text in dict.fromkeys([*texts, ""])}


def read_prompts(file: Path | None) -> list[str]:
    """The lines of a prompt file that are not empty; none without a file."""
    return [] if file is None else [line.strip() for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]


def counter(what: str) -> Callable[[int, int], None]:
    """Progress of a count on one line of the terminal."""

    def show(done: int, total: int) -> None:
        print(f"\r{what}: {done} of {total}", end="\n" if done == total else "", flush=True)

    return show


class Meter:
    """Step, loss and time left on one line; Ctrl-C ends training and keeps what was trained."""

    def __init__(self, steps: int):
        self.steps, self.first, self.go_on = steps, None, True
        signal.signal(signal.SIGINT, self._cancel)

    def _cancel(self, *_) -> None:
        self.go_on = False

    def __call__(self, progress) -> bool:
        now = time.monotonic()
        self.first = self.first or (now, progress.step)
        pace = (now - self.first[0]) / max(1, progress.step - self.first[1])
        left = pace * (self.steps - progress.step)
        line = f"step {progress.step} of {self.steps}, loss {progress.losses[-1]:.4f}, {left:.0f} s left"
        print(f"\r{line:<70}", end="", flush=True)
        return self.go_on


def report(output: Path, progress) -> None:
    print(f"\nWrote {output} after {progress.step} steps" + (" (cancelled)." if progress.cancelled else "."))
