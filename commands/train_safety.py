"""Train a safety LoRA that erases a concept, without data, from prompts alone; the result is sealed.

    python -m modular_safety_lora train-safety --checkpoint base.safetensors --concept nudity --output safety.safetensors

Chart and report go beside the file. Ctrl-C keeps what was trained; the same command goes on from the last checkpoint.
"""

import argparse
from pathlib import Path

from ..host.comfyui import load_checkpoint
from ..host.prompts import PRESETS
from . import training


def options(parser: argparse.ArgumentParser) -> None:
    training.add_options(parser)
    add = parser.add_argument
    add("--concept", default="", help="what to erase; several prompts are separated by commas")
    add("--concept-file", type=Path, help="more prompts of the concept, a line each")
    add("--concept-preset", choices=PRESETS, help="prompts of a published work")
    add("--retain-file", type=Path, help="prompts of what must stay as it is, a line each")
    add("--method", choices=["esd-x", "esd-u", "sdd"], default="esd-x", help="ESD on attn2, on the rest, or SDD")
    add("--eta", type=float, default=1.0, help="ESD: how far past the unconditional output the target lies")
    add("--guidance", type=float, default=3.0, help="guidance of the pictures that are half-made")
    add("--sampling-steps", type=int, default=50, help="steps of these pictures, stopped at random")


def work(options: argparse.Namespace) -> None:
    share = training.start(options)
    from ..host.prompts import encode_texts, prompts_of
    from ..training.engine.adapters import AdapterSettings
    from ..training.erasure import Erasure
    from ..training.safety import train_safety
    from ..training.settings import Settings

    adapter = AdapterSettings(options.rank, options.alpha or options.rank)
    settings = Settings(adapter=adapter, **training.shared_settings(options))
    erasure = Erasure(options.method, options.eta, options.guidance, options.sampling_steps)
    concepts = prompts_of(options.concept, training.read_prompts(options.concept_file), options.concept_preset)
    if not concepts:
        raise ValueError("There is no concept prompt to erase; give --concept, --concept-file or --concept-preset.")
    retain = training.read_prompts(options.retain_file)
    model, clip, vae = load_checkpoint(options.checkpoint)
    texts = encode_texts(clip, [*concepts, *retain])
    job = training.job(options, clip, vae, share)
    result = train_safety(model, texts, concepts, settings, erasure, job, retain, options.resolution)
    training.finish(options.output, result)
