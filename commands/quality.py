"""Measure what safety costs: whether prompts are still followed, and how far pictures moved.

    python custom_nodes/modular-safety-lora quality SAFE --against BASE \\
        --clip-vision CLIP-ViT-L-14.safetensors --clip clip_l.safetensors

SAFE and BASE are folders of audit-prompts --keep "all, as they are", with the same prompts and
seeds; or any folders of pictures, with a .txt beside each for its prompt. SAFE, or --output, gets
quality.html and quality.json. The CLIP score is 100 cos(picture, prompt); Hessel et al. 2021 have
2.5 max(cos, 0). The SPQR score needs --against, --harmful, --tuned and --worst-cmmd.
"""

import argparse
from pathlib import Path

from ..evaluation.quality.sources import REPORT
from ..evaluation.quality.spqr import Scale
from ..host.comfyui import enter_comfyui, load_clip_text, load_clip_vision
from .base import add_comfyui
from .flags import add_flags, taken
from .kinds import folder
from .language import add_language
from .terminal import Bar


def options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("run", type=Path, metavar="RUN", help="the folder whose pictures are measured")
    add(
        "--against",
        type=Path,
        metavar="FOLDER",
        help="the base's run of the same prompts and seeds, or a folder of photographs",
    )
    add(
        "--clip-vision",
        type=Path,
        required=True,
        metavar="FILE",
        help="a CLIP vision model, such as CLIP-ViT-L-14",
    )
    add(
        "--clip",
        type=Path,
        required=True,
        metavar="FILE",
        help="the text encoder of the same CLIP, such as clip_l.safetensors",
    )
    add(
        "--clip-type",
        default="stable_diffusion",
        metavar="TYPE",
        help="the text encoder's type in ComfyUI's Load CLIP",
    )
    add("--output", type=folder, help="the folder of the results; without it, RUN")
    for name, when in (("harmful", ""), ("tuned", ", after benign tuning")):
        add(
            f"--{name}",
            type=Path,
            metavar="RUN",
            help=f"for the SPQR score: the safe model's run of harmful prompts{when}",
        )
    add_flags(parser, Scale)
    add_comfyui(parser)
    add_language(parser)


def work(options: argparse.Namespace) -> None:
    (scale,) = taken(options, Scale)
    if not (options.output or (options.run / REPORT).is_file()):
        raise ValueError(
            f"{options.run}: no run is there, so nothing is written into it. Name a folder for the"
            " results with --output."
        )
    enter_comfyui(options.comfyui)
    from ..evaluation.quality.measure import MeasureJob, measure

    vision = load_clip_vision(options.clip_vision)
    clip = load_clip_text(options.clip, options.clip_type)
    others = options.against, options.harmful, options.tuned
    output = options.output or options.run
    with Bar("Looking", "pictures and prompts") as bar:
        found = measure(vision, clip, MeasureJob(options.run, output, *others, scale, bar))
    print(found.words)
    print(f"\nPage: {found.page}")
