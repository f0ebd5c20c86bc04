"""Train a task LoRA from a folder of captioned pictures.

It is trained apart from a frozen safety module, or beside it.

    python custom_nodes/modular-safety-lora train-task --checkpoint base.safetensors \\
        --data pictures --output style.safetensors --safety-lora safety.safetensors

Chart and report go beside the file. Ctrl-C keeps what was trained; the same command goes on from
the last checkpoint.
"""

import argparse
import functools
from pathlib import Path

from ..training.options import TASK
from ..training.settings import settings_of
from . import training
from .base import load_base
from .terminal import Bar


def options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--data",
        type=Path,
        required=True,
        metavar="FOLDER",
        help="pictures with .txt captions, or a metadata.jsonl",
    )
    add(
        "--prior-data",
        type=Path,
        metavar="FOLDER",
        help="prior preservation: pictures of what must stay as it is",
    )
    add(
        "--safety-lora",
        type=Path,
        action="append",
        metavar="FILE",
        help="a sealed safety module it goes with; repeatable",
    )
    add(
        "--concept-file",
        type=Path,
        metavar="FILE",
        help="prompts of the concept (anchored); the module's own otherwise",
    )
    training.add_options(parser, TASK)


def work(options: argparse.Namespace) -> None:
    share = training.start(options)
    import torch

    from ..host.prompts import concepts_of, encode_texts, read_lines
    from ..modules.files import load_safety
    from ..training import data
    from ..training.task import train_task

    settings = settings_of(vars(options))
    safety = [load_safety(path, path.name) for path in options.safety_lora or []]
    concepts = read_lines(options.concept_file) or concepts_of(safety)
    pictures = data.find_pictures(options.data)
    prior = data.find_pictures(options.prior_data) if options.prior_data else None
    model, clip, vae = load_base(options)

    def load(found: list[data.Captioned], what: str) -> data.Dataset:
        texts = functools.partial(encode_texts, clip)
        with torch.no_grad(), Bar(what, "pictures", shown=share.is_main) as bar:
            return data.load(found, vae.encode, texts, options.resolution, bar, share=share)

    dataset = load(pictures, "Encoding pictures")
    prior = prior and load(prior, "Encoding prior pictures")
    texts = encode_texts(clip, concepts)
    job = training.job(options, clip, vae, share)
    more = {"safety": safety, "concepts": concepts, "prior": prior}
    training.finish(options.output, train_task(model, dataset, texts, settings, job, **more))
