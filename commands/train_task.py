"""Train a task LoRA from a folder of captioned pictures.

It is trained apart from a frozen safety LoRA, or beside it.

    python custom_nodes/modular-safety-lora train-task --checkpoint base.safetensors \\
        --data pictures --output style.safetensors --safety-lora safety.safetensors

Chart and report go beside the file. Ctrl-C keeps what was trained; the same command goes on from
the last checkpoint.
"""

import argparse
import functools
from pathlib import Path

from ..options.table import TASK
from ..training.prompting import Anchoring, Fitting
from ..training.settings import Settings
from . import training
from .base import add_safety, load_base, safety_of
from .flags import taken
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
    add_safety(parser)
    training.add_options(parser, TASK, Anchoring, Fitting)


def work(options: argparse.Namespace) -> None:
    (settings,) = taken(options, Settings)
    with training.started(options, settings) as start:
        _train(options, settings, start)


def _train(options: argparse.Namespace, settings: Settings, start: training.Started) -> None:
    import torch

    from ..host.prompts import concepts_of, encode_texts
    from ..training import data
    from ..training.targets import check_pattern
    from ..training.task import check_mode, train_task

    anchoring, fitting = taken(options, Anchoring, Fitting)
    safety = safety_of(options)
    concepts = anchoring.concept_prompts or concepts_of(safety)
    check_mode(settings, safety, concepts)
    pictures = data.of_folder(options.data, fitting.resolution)
    prior = options.prior_data and data.of_folder(options.prior_data, fitting.resolution)
    for warning in (*pictures.warnings, *(prior.warnings if prior else ())):
        start.say(warning)
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
