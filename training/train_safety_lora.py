"""Train a safety LoRA that erases a concept, without data, from prompts alone; the result is sealed."""

import argparse
import sys
from pathlib import Path

from . import cli
from .processes import Share
from .prompts import PRESETS

NAME = "train_safety_lora"


def parser() -> argparse.ArgumentParser:
    made = cli.parser(NAME, __doc__)
    add = made.add_argument
    add("--concept", default="", help="what to erase; several prompts are separated by commas")
    add("--concept-file", type=Path, help="more prompts of the concept, a line each")
    add("--concept-preset", choices=PRESETS, help="prompts of a published work")
    add("--retain-file", type=Path, help="prompts of what must stay as it is, a line each")
    add("--method", choices=["esd-x", "esd-u", "sdd"], default="esd-x", help="ESD on attn2, on the rest, or SDD")
    add("--eta", type=float, default=1.0, help="ESD: how far past the unconditional output the target lies")
    add("--guidance", type=float, default=3.0, help="guidance of the pictures that are half-made")
    add("--sampling-steps", type=int, default=50, help="steps of these pictures, stopped at random")
    return made


def work(options: argparse.Namespace, share: Share) -> None:
    from .adapters import AdapterSettings
    from .erasure import Erasure
    from .prompts import encode_texts, prompts_of
    from .safety import train_safety
    from .settings import Settings

    adapter = AdapterSettings(options.rank, options.alpha or options.rank)
    settings = Settings(adapter=adapter, **cli.shared_settings(options))
    erasure = Erasure(options.method, options.eta, options.guidance, options.sampling_steps)
    concepts = prompts_of(options.concept, cli.read_prompts(options.concept_file), options.concept_preset)
    if not concepts:
        raise ValueError("There is no concept prompt to erase; give --concept, --concept-file or --concept-preset.")
    retain = cli.read_prompts(options.retain_file)
    model, clip, vae = cli.load_checkpoint(options.checkpoint)
    texts = encode_texts(clip, [*concepts, *retain])
    job = cli.job(options, clip, vae, share)
    result = train_safety(model, texts, concepts, settings, erasure, job, retain, options.resolution)
    cli.finish(options.output, result)


def main(arguments: list[str] | None = None) -> int:
    return cli.run(NAME, parser().parse_args(arguments), work)


if __name__ == "__main__":
    sys.exit(main())
