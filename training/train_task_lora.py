"""Train a task LoRA from a folder of captioned pictures, apart from or beside a frozen safety module."""

import argparse
import sys
import time
from pathlib import Path

from .host import enter_comfyui


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="python -m modular_safety_lora.training.train_task_lora",
        description=__doc__,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    made.add_argument("--checkpoint", type=Path, required=True, help="the base model, a ComfyUI checkpoint")
    made.add_argument("--data", type=Path, required=True, help="pictures with .txt captions, or a metadata.jsonl")
    made.add_argument("--output", type=Path, required=True, help="the .safetensors file to write")
    made.add_argument("--comfyui", help="ComfyUI's folder; COMFYUI_PATH otherwise")
    made.add_argument("--safety-lora", type=Path, help="the sealed safety module it will be merged with")
    made.add_argument("--safety-mode", choices=["detached", "anchored", "frozen"], default="detached", help="see the README")
    made.add_argument(
        "--concept-file", type=Path, help="prompts of the concept, a line each (anchored); msl.concept otherwise"
    )
    made.add_argument("--anchor-lambda", type=float, default=3.0, help="weight of the anchor")
    made.add_argument("--steps", type=int, default=1000, help="optimizer steps")
    made.add_argument("--rank", type=int, default=4, help="rank of the LoRA")
    made.add_argument("--alpha", type=float, help="alpha of the LoRA; the rank otherwise")
    made.add_argument("--dropout", type=float, default=0.0, help="dropout before A")
    made.add_argument("--rslora", action="store_true", help="scale by alpha / sqrt(rank)")
    made.add_argument("--dora", action="store_true", help="train a DoRA")
    made.add_argument("--learning-rate", type=float, default=1e-4, help="learning rate of AdamW")
    made.add_argument("--schedule", choices=["constant", "linear", "cosine"], default="constant", help="after the warm-up")
    made.add_argument("--warmup", type=int, default=0, help="steps of linear warm-up")
    made.add_argument("--batch-size", type=int, default=1, help="pictures in a batch")
    made.add_argument("--accumulate", type=int, default=1, help="batches in a step")
    made.add_argument("--resolution", type=int, default=512, help="pictures are scaled to about this many pixels squared")
    made.add_argument(
        "--targets", default="attention", help="attention, cross-attention, attention+mlp, all, or part of a name"
    )
    made.add_argument("--min-snr-gamma", type=float, help="min-SNR weighting; 5 is the paper's")
    made.add_argument("--noise-offset", type=float, default=0.0, help="noise offset")
    made.add_argument("--seed", type=int, default=0, help="seed of everything random")
    made.add_argument("--save-every", type=int, default=0, help="steps between checkpoints to resume from")
    made.add_argument("--resume", action="store_true", help="go on from the checkpoint beside the output, if there is one")
    return made


def main(arguments: list[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    enter_comfyui(options.comfyui)
    try:
        run(options)
    except (ValueError, OSError, RuntimeError) as error:
        print(f"train_task_lora: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    return 0


def run(options: argparse.Namespace) -> None:
    import comfy.sd
    import torch

    from ..modular.files import load_safety
    from . import data
    from .adapters import AdapterSettings
    from .settings import Settings
    from .task import train_task

    adapter = AdapterSettings(options.rank, options.alpha or options.rank, options.dropout, options.rslora, options.dora)
    names = ("steps", "batch_size", "accumulate", "learning_rate", "schedule", "warmup", "min_snr_gamma", "noise_offset")
    names += ("seed", "targets", "safety_mode", "anchor_lambda")
    settings = Settings(adapter=adapter, **{name: getattr(options, name) for name in names})
    safety = load_safety(options.safety_lora, options.safety_lora.name) if options.safety_lora else None
    concepts = _concepts(options, safety) if options.safety_mode == "anchored" else []
    pictures = data.find_pictures(options.data)
    if not options.checkpoint.is_file():
        raise FileNotFoundError(f"{options.checkpoint}: there is no such checkpoint.")
    model, clip, vae, _ = comfy.sd.load_checkpoint_guess_config(str(options.checkpoint))
    with torch.no_grad():
        dataset = data.load(pictures, vae.encode, options.resolution, _counter("Encoding pictures"))
        wanted = dict.fromkeys([*dataset.captions, *concepts, ""])
        texts = {text: clip.encode_from_tokens_scheduled(clip.tokenize(text)) for text in wanted}
    progress = train_task(
        model,
        dataset,
        texts,
        options.output,
        settings,
        safety,
        concepts,
        options.save_every,
        options.resume,
        _Meter(settings.steps),
    )
    print(f"\nWrote {options.output} after {progress.step} steps" + (" (cancelled)." if progress.cancelled else "."))


def _concepts(options: argparse.Namespace, safety) -> list[str]:
    if options.concept_file:
        return [line.strip() for line in options.concept_file.read_text(encoding="utf-8").splitlines() if line.strip()]
    concept = safety.metadata.get("msl.concept", "") if safety else ""
    return [part.strip() for part in concept.split(",") if part.strip()]


def _counter(what: str):
    def show(done: int, total: int) -> None:
        print(f"\r{what}: {done} of {total}", end="\n" if done == total else "", flush=True)

    return show


class _Meter:
    """Step, loss and time left on one line; Ctrl-C ends training and keeps what was trained."""

    def __init__(self, steps: int):
        import signal

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


if __name__ == "__main__":
    sys.exit(main())
