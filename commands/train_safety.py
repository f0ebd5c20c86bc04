"""Train a safety LoRA that erases a concept, without data, from prompts alone; it is sealed.

    python custom_nodes/modular-safety-lora train-safety --checkpoint base.safetensors \\
        --concept nudity --output safety.safetensors

Chart and report go beside the file. Ctrl-C keeps what was trained; the same command goes on from
the last checkpoint.
"""

import argparse

from ..host.prompts import encode_texts
from ..options.table import SAFETY
from ..training.objectives import Erasure
from ..training.prompting import Erased
from ..training.settings import Settings, fitted
from . import training
from .base import load_base
from .flags import taken


def options(parser: argparse.ArgumentParser) -> None:
    training.add_options(parser, SAFETY, Erased)


def work(options: argparse.Namespace) -> None:
    settings, erasure, erased = taken(options, Settings, Erasure, Erased)
    settings = fitted(settings, erasure)
    with training.started(options, settings) as start:
        from ..training.safety import train_safety

        if not erased.concepts:
            raise ValueError(
                "There is no concept prompt to erase;"
                " give --concept, --concept-file or --concept-preset."
            )
        others = erased.others(erasure.method)
        model, clip, vae = load_base(options)
        texts = encode_texts(clip, erased.texts)
        job, more = training.job(options, clip, vae, start), {"erasure": erasure, **others}
        more["retain"] = erased.retained(texts)
        result = train_safety(model, texts, erased.concepts, settings, job, **more)
        training.finish(options.output, result)
