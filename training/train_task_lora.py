"""Train a task LoRA from a folder of captioned pictures, apart from or beside a frozen safety module."""

import argparse
import sys
from pathlib import Path

from . import cli
from .processes import Share
from .settings import SAFETY_MODES

NAME = "train_task_lora"
OWN = ("ema", "min_snr_gamma", "noise_offset", "prior_weight", "targets", "safety_mode", "anchor_lambda", "anchor_every")


def parser() -> argparse.ArgumentParser:
    made = cli.parser(NAME, __doc__)
    add = made.add_argument
    add("--data", type=Path, required=True, help="pictures with .txt captions, or a metadata.jsonl")
    add("--safety-lora", type=Path, action="append", help="a sealed safety module it will be merged with; may be repeated")
    add("--safety-mode", choices=SAFETY_MODES, default="detached", help="see the README")
    add("--concept-file", type=Path, help="prompts of the concept, a line each (anchored); msl.concept otherwise")
    add("--anchor-lambda", type=float, default=3.0, help="weight of the anchor")
    add("--anchor-every", type=int, default=3, help="steps from one anchor to the next, which weighs as much as all")
    add("--targets", default="attention", help="attention, cross-attention, attention+mlp, all, or a regular expression")
    add("--dropout", type=float, default=0.0, help="dropout before A")
    add("--rslora", action="store_true", help="scale by alpha / sqrt(rank)")
    add("--dora", action="store_true", help="train a DoRA")
    add("--ema", type=float, default=0.0, help="save a moving average of this decay, such as 0.999; 0 for none")
    add("--min-snr-gamma", type=float, help="min-SNR weighting; 5 is the paper's")
    add("--noise-offset", type=float, default=0.0, help="noise offset")
    add("--prior-data", type=Path, help="prior preservation: captioned pictures of what must stay as it is")
    add("--prior-weight", type=float, default=1.0, help="weight of the prior pictures")
    return made


def work(options: argparse.Namespace, share: Share) -> None:
    import torch

    from ..modular.files import load_safety
    from . import data
    from .adapters import AdapterSettings
    from .prompts import concepts_of, encode_texts
    from .settings import Settings
    from .task import train_task

    adapter = AdapterSettings(options.rank, options.alpha or options.rank, options.dropout, options.rslora, options.dora)
    own = {name: getattr(options, name) for name in OWN}
    settings = Settings(adapter=adapter, **cli.shared_settings(options), **own)
    safety = [load_safety(path, path.name) for path in options.safety_lora or []]
    concepts = cli.read_prompts(options.concept_file) or concepts_of(safety)
    pictures = data.find_pictures(options.data)
    prior = data.find_pictures(options.prior_data) if options.prior_data else None
    model, clip, vae = cli.load_checkpoint(options.checkpoint)

    def load(found: list[data.Captioned], what: str) -> data.Dataset:
        texts, progress = lambda captions: encode_texts(clip, captions), cli.counter(what, share.is_main)
        with torch.no_grad():
            return data.load(found, vae.encode, texts, options.resolution, progress, share)

    dataset = load(pictures, "Encoding pictures")
    prior = prior and load(prior, "Encoding prior pictures")
    texts = encode_texts(clip, concepts)
    job = cli.job(options, clip, vae, share)
    cli.finish(options.output, train_task(model, dataset, texts, settings, job, safety, concepts, prior))


def main(arguments: list[str] | None = None) -> int:
    return cli.run(NAME, parser().parse_args(arguments), work)


if __name__ == "__main__":
    sys.exit(main())
