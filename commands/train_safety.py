"""Train a safety LoRA that erases a concept, without data, from prompts alone; it is sealed.

    python custom_nodes/modular-safety-lora train-safety --checkpoint base.safetensors \\
        --concept nudity --output safety.safetensors

Chart and report go beside the file. Ctrl-C keeps what was trained; the same command goes on from
the last checkpoint.
"""

import argparse
from pathlib import Path

from ..host.prompts import CONCEPT_PRESETS, encode_texts, prompts_of, read_lines
from ..modules.concepts import texts_of
from ..options.table import SAFETY, values_of
from ..training.objectives import Erasure
from ..training.settings import settings_of
from . import training
from .base import load_base


def options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--concept", default="", help="what to erase; several prompts are separated by commas")
    add(
        "--concept-file", type=Path, metavar="FILE", help="more prompts of the concept, a line each"
    )
    add("--concept-preset", choices=CONCEPT_PRESETS, help="prompts of a published work")
    add(
        "--retain-file",
        type=Path,
        metavar="FILE",
        help="prompts of what must stay as it is, a line each",
    )
    add(
        "--held-out-file",
        type=Path,
        metavar="FILE",
        help="prompts of the concept that are never trained on, a line each, for Probe Safety",
    )
    training.add_options(parser, SAFETY)


def work(options: argparse.Namespace) -> None:
    given = vars(options)
    settings, erasure = settings_of(given), Erasure(**values_of(Erasure, given))
    with training.started(options, settings) as start:
        from ..training.safety import train_safety

        more = {"erasure": erasure, "resolution": options.resolution}
        more["held_out"] = texts_of(read_lines(options.held_out_file))
        lines = read_lines(options.concept_file)
        concepts = prompts_of(options.concept, lines, options.concept_preset)
        if not concepts:
            raise ValueError(
                "There is no concept prompt to erase;"
                " give --concept, --concept-file or --concept-preset."
            )
        retain = read_lines(options.retain_file)
        model, clip, vae = load_base(options)
        texts = encode_texts(clip, [*concepts, *retain])
        job = training.job(options, clip, vae, start)
        result = train_safety(model, texts, concepts, settings, job, retain=retain, **more)
        training.finish(options.output, result)
