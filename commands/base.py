"""The base model that a verb works on: one checkpoint, or each part in a file of its own."""

import argparse
from pathlib import Path

from ..host.comfyui import load_checkpoint, load_parts

HELD = ("default", "float8_e4m3fn", "float8_e5m2")


def add_base(parser: argparse.ArgumentParser) -> None:
    """The options that name it."""
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument(
        "--checkpoint", type=Path, help="the base model, a ComfyUI checkpoint with all its parts"
    )
    which.add_argument(
        "--diffusion-model",
        type=Path,
        metavar="FILE",
        help="the diffusion model alone, as Flux, Z-Image, Qwen-Image and Wan come",
    )
    add = parser.add_argument
    add(
        "--text-encoder",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="beside it: the text encoder; may be repeated, as for Flux",
    )
    add(
        "--text-encoder-type",
        default="stable_diffusion",
        metavar="TYPE",
        help="its type in ComfyUI's Load CLIP: flux, lumina2 (Z-Image), qwen_image, wan, ...",
    )
    add("--vae", type=Path, metavar="FILE", help="beside it: the VAE")
    add(
        "--weight-dtype",
        choices=HELD,
        default=HELD[0],
        help="how the diffusion model is held, as in ComfyUI's Load Diffusion Model",
    )


def load_base(options: argparse.Namespace):
    """(MODEL, CLIP, VAE), as ComfyUI's own loaders read what the options name."""
    if options.checkpoint:
        if options.text_encoder or options.vae or options.weight_dtype != HELD[0]:
            raise ValueError(
                f"{options.checkpoint.name} has all parts: leave out --text-encoder, --vae and"
                " --weight-dtype, or give --diffusion-model in place of --checkpoint."
            )
        return load_checkpoint(options.checkpoint)
    if not (options.text_encoder and options.vae):
        raise ValueError("Beside --diffusion-model, --text-encoder and --vae are needed.")
    return load_parts(
        options.diffusion_model,
        options.text_encoder,
        options.text_encoder_type,
        options.vae,
        options.weight_dtype,
    )
