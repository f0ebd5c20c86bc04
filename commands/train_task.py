"""Train a task LoRA from a folder of captioned pictures, apart from or beside a frozen safety module.

    python -m modular_safety_lora train-task --checkpoint base.safetensors --data pictures --output style.safetensors \\
        --safety-lora safety.safetensors

Chart and report go beside the file. Ctrl-C keeps what was trained; the same command goes on from the last checkpoint.
"""

import argparse
import functools
from pathlib import Path

from ..host.comfyui import load_checkpoint
from ..training.settings import SAFETY_MODES
from . import training
from .terminal import Bar

OWN = ("ema", "min_snr_gamma", "noise_offset", "prior_weight", "targets", "safety_mode", "anchor_lambda", "anchor_every")


def options(parser: argparse.ArgumentParser) -> None:
    training.add_options(parser)
    add = parser.add_argument
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


def work(options: argparse.Namespace) -> None:
    share = training.start(options)
    import torch

    from ..host.prompts import concepts_of, encode_texts
    from ..modules.files import load_safety
    from ..training import data
    from ..training.engine.adapters import AdapterSettings
    from ..training.settings import Settings
    from ..training.task import train_task

    adapter = AdapterSettings(options.rank, options.alpha or options.rank, options.dropout, options.rslora, options.dora)
    own = {name: getattr(options, name) for name in OWN}
    settings = Settings(adapter=adapter, **training.shared_settings(options), **own)
    safety = [load_safety(path, path.name) for path in options.safety_lora or []]
    concepts = training.read_prompts(options.concept_file) or concepts_of(safety)
    pictures = data.find_pictures(options.data)
    prior = data.find_pictures(options.prior_data) if options.prior_data else None
    model, clip, vae = load_checkpoint(options.checkpoint)

    def load(found: list[data.Captioned], what: str) -> data.Dataset:
        texts = functools.partial(encode_texts, clip)
        with torch.no_grad(), Bar(what, "pictures", shown=share.is_main) as bar:
            return data.load(found, vae.encode, texts, options.resolution, bar, share)

    dataset = load(pictures, "Encoding pictures")
    prior = prior and load(prior, "Encoding prior pictures")
    texts = encode_texts(clip, concepts)
    job = training.job(options, clip, vae, share)
    training.finish(options.output, train_task(model, dataset, texts, settings, job, safety, concepts, prior))
