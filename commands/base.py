"""The base model that a verb works on: one checkpoint, or each part in a file of its own."""

import argparse
import importlib
from collections import Counter
from pathlib import Path

import torch

from ..host.comfyui import load_checkpoint, load_parts
from ..modules.files import LoraFile, load_safety
from ..modules.paths import content_sha256
from ..modules.sealing import files_of

HELD = ("default", "float8_e4m3fn", "float8_e5m2")


def add_base(parser: argparse.ArgumentParser, vae: bool = True) -> None:
    """The options that name it; a verb that makes no picture needs no VAE."""
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument(
        "--checkpoint", type=Path, help="the base model, a ComfyUI checkpoint with all its parts"
    )
    which.add_argument(
        "--diffusion-model",
        type=Path,
        metavar="FILE",
        help="the diffusion model alone, for models such as Flux, Z-Image, Qwen-Image and Wan",
    )
    add = parser.add_argument
    add(
        "--text-encoder",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="with --diffusion-model: the text encoder; may be repeated, as for Flux",
    )
    add(
        "--text-encoder-type",
        default="stable_diffusion",
        metavar="TYPE",
        help=(
            "the text encoder's type in ComfyUI's Load CLIP: flux, lumina2 (Z-Image), qwen_image,"
            " wan, ..."
        ),
    )
    if vae:
        add("--vae", type=Path, metavar="FILE", help="with --diffusion-model: the VAE")
    add(
        "--weight-dtype",
        choices=HELD,
        default=HELD[0],
        help="the diffusion model's weight_dtype, as in ComfyUI's Load Diffusion Model",
    )


def add_loras(parser: argparse.ArgumentParser) -> None:
    """The options of a verb that merges LoRAs, each alone, with safety LoRAs on a base."""
    add = parser.add_argument
    add("paths", nargs="+", type=Path, metavar="LORA", help="LoRA files, or folders of them")
    add_base(parser, vae=False)
    add_safety(parser, required=True)
    add_comfyui(parser)


def add_safety(parser: argparse.ArgumentParser, required: bool = False) -> None:
    """The safety LoRAs of a verb."""
    parser.add_argument(
        "--safety-lora",
        type=Path,
        action="append",
        default=[],
        required=required,
        metavar="FILE",
        help="a sealed safety LoRA; may be repeated",
    )


def add_comfyui(parser: argparse.ArgumentParser) -> None:
    """Where the ComfyUI is that a verb runs in."""
    parser.add_argument(
        "--comfyui",
        metavar="FOLDER",
        help=(
            "ComfyUI's folder; without it, COMFYUI_PATH or the ComfyUI that this pack is installed"
            " in"
        ),
    )


def safety_of(options: argparse.Namespace) -> list[LoraFile]:
    """The safety LoRAs that are named, in their order."""
    return [load_safety(path, path.name) for path in options.safety_lora]


def loras_of(options: argparse.Namespace) -> dict[str, Path]:
    """The LoRAs that are named, by a name that no other has, without the safety LoRAs.

    Raises ValueError where there is none.
    """
    held = {path.resolve() for path in options.safety_lora}
    paths = [path for path in files_of(options.paths) if path.resolve() not in held]
    if not paths:
        raise ValueError(f"There is no .safetensors file in {', '.join(map(str, options.paths))}.")
    shared = Counter(path.name for path in paths)
    return {path.as_posix() if shared[path.name] > 1 else path.name: path for path in paths}


def loaded_of(options: argparse.Namespace, *more: Path) -> dict[str, object]:
    """What the options make a model of, but its LoRAs' strengths; nothing where a file is absent.

    Each file is its name and SHA-256; `more` are files beside those of the base.
    """
    base = [options.checkpoint, options.diffusion_model, *options.text_encoder, options.vae]
    files = [path for path in (*base, *options.safety_lora, *more) if path]
    if not all(path.is_file() for path in files):
        return {}
    return {
        "files": [[path.name, content_sha256(path)] for path in files],
        "parts": [path is not None for path in base],
        **{name: getattr(options, name) for name in ("text_encoder_type", "weight_dtype")},
        "ComfyUI": importlib.import_module("comfyui_version").__version__,
        "torch": torch.__version__,
    }


def load_base(options: argparse.Namespace):
    """(MODEL, CLIP, VAE), as ComfyUI's own loaders read what the options name.

    The VAE is None where the verb has no option for it, and the parts are in files of their own.
    """
    parts = {"--text-encoder": options.text_encoder}
    if "vae" in options:
        parts["--vae"] = options.vae
    names = " and ".join(parts)
    if options.checkpoint:
        if any(parts.values()) or options.weight_dtype != HELD[0]:
            raise ValueError(
                f"{options.checkpoint.name} has all parts: leave out {names} and --weight-dtype,"
                " or give --diffusion-model in place of --checkpoint."
            )
        return load_checkpoint(options.checkpoint)
    if not all(parts.values()):
        needed = "is" if len(parts) == 1 else "are"
        raise ValueError(f"With --diffusion-model, {names} {needed} needed.")
    return load_parts(
        options.diffusion_model,
        options.text_encoder,
        options.text_encoder_type,
        parts.get("--vae"),
        options.weight_dtype,
    )
