"""Train a task LoRA from a folder of captioned pictures, apart from or beside a frozen safety module."""

import argparse
import sys
from pathlib import Path

from . import cli

NAME = "train_task_lora"


def parser() -> argparse.ArgumentParser:
    made = cli.parser(NAME, __doc__)
    made.add_argument("--data", type=Path, required=True, help="pictures with .txt captions, or a metadata.jsonl")
    made.add_argument("--safety-lora", type=Path, help="the sealed safety module it will be merged with")
    made.add_argument("--safety-mode", choices=["detached", "anchored", "frozen"], default="detached", help="see the README")
    made.add_argument(
        "--concept-file", type=Path, help="prompts of the concept, a line each (anchored); msl.concept otherwise"
    )
    made.add_argument("--anchor-lambda", type=float, default=3.0, help="weight of the anchor")
    made.add_argument(
        "--targets", default="attention", help="attention, cross-attention, attention+mlp, all, or part of a name"
    )
    made.add_argument("--dropout", type=float, default=0.0, help="dropout before A")
    made.add_argument("--rslora", action="store_true", help="scale by alpha / sqrt(rank)")
    made.add_argument("--dora", action="store_true", help="train a DoRA")
    made.add_argument("--min-snr-gamma", type=float, help="min-SNR weighting; 5 is the paper's")
    made.add_argument("--noise-offset", type=float, default=0.0, help="noise offset")
    return made


def work(options: argparse.Namespace) -> None:
    import torch

    from ..modular.files import load_safety
    from . import data
    from .adapters import AdapterSettings
    from .erasure import prompts_of
    from .settings import Settings
    from .task import train_task

    adapter = AdapterSettings(options.rank, options.alpha or options.rank, options.dropout, options.rslora, options.dora)
    own = {
        name: getattr(options, name) for name in ("min_snr_gamma", "noise_offset", "targets", "safety_mode", "anchor_lambda")
    }
    settings = Settings(adapter=adapter, **cli.shared_settings(options), **own)
    safety = load_safety(options.safety_lora, options.safety_lora.name) if options.safety_lora else None
    concepts = cli.read_prompts(options.concept_file)
    if options.safety_mode == "anchored" and not concepts and safety:
        concepts = prompts_of(safety.metadata.get("msl.concept", ""))
    pictures = data.find_pictures(options.data)
    model, clip, vae = cli.load_checkpoint(options.checkpoint)
    with torch.no_grad():
        dataset = data.load(pictures, vae.encode, options.resolution, cli.counter("Encoding pictures"))
    texts = cli.encode_texts(clip, [*dataset.captions, *concepts])
    meter = cli.Meter(settings.steps)
    progress = train_task(
        model, dataset, texts, options.output, settings, safety, concepts, options.save_every, options.resume, meter
    )
    cli.report(options.output, progress)


def main(arguments: list[str] | None = None) -> int:
    return cli.run(NAME, parser().parse_args(arguments), work)


if __name__ == "__main__":
    sys.exit(main())
