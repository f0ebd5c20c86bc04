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

from ..options.table import TASK
from ..training.settings import Settings, settings_of
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
    settings = settings_of(vars(options))
    with training.started(options, settings) as start:
        _train(options, settings, start)


def _train(options: argparse.Namespace, settings: Settings, start: training.Started) -> None:
    import torch

    from ..host.prompts import concepts_of, encode_texts, read_lines
    from ..modules.files import load_safety
    from ..training import captions, data
    from ..training.targets import check_pattern
    from ..training.task import check_mode, train_task

    safety = [load_safety(path, path.name) for path in options.safety_lora or []]
    concepts = read_lines(options.concept_file) or concepts_of(safety)
    check_mode(settings, safety, concepts)
    pictures = data.sized(captions.find_pictures(options.data), options.resolution)
    prior = options.prior_data and data.sized(
        captions.find_pictures(options.prior_data), options.resolution
    )
    model, clip, vae = load_base(options)
    check_pattern(model.model.diffusion_model, settings.targets)

    def load(found: data.Sized, what: str) -> data.Dataset:
        texts = functools.partial(encode_texts, clip)
        with torch.no_grad(), Bar(what, "pictures", shown=start.share.is_main) as bar:
            return data.load(found, vae.encode, texts, bar, share=start.share)

    dataset = load(pictures, "Encoding pictures")
    prior = prior and load(prior, "Encoding prior pictures")
    texts = encode_texts(clip, concepts)
    job = training.job(options, clip, vae, start)
    more = {"safety": safety, "concepts": concepts, "prior": prior}
    training.finish(options.output, train_task(model, dataset, texts, settings, job, **more))
