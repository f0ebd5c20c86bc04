"""The real ComfyUI in this process, for the command lines, the demo and the tests."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:  # what it imports is not known before `enter_comfyui`
    from comfy.model_patcher import ModelPatcher
    from comfy.sd import CLIP, VAE

# the ComfyUI that this pack lies in, when it is among its custom_nodes
OWN = Path(__file__).resolve().parents[3]


def comfyui_path(given: str | None = None) -> Path:
    """ComfyUI's folder: the one given, or COMFYUI_PATH, or the one that this pack lies in.

    Exits with a line of reason when there is none.
    """
    given = (
        given
        or os.environ.get("COMFYUI_PATH")
        or (str(OWN) if (OWN / "main.py").is_file() else None)
    )
    if not given or not Path(given, "main.py").is_file():
        raise SystemExit(
            f"There is no ComfyUI in {given!r}: no main.py. Name its folder with --comfyui PATH or"
            " COMFYUI_PATH."
            if given
            else (
                "Nothing says where ComfyUI is. Name its folder with --comfyui PATH or"
                " COMFYUI_PATH; `python dev.py test` brings one of its own for the tests."
            )
        )
    return Path(given).resolve()


def enter_comfyui(given: str | None = None) -> None:
    """Make `import comfy` work here. Call it before anything of ComfyUI is imported."""
    folder = str(comfyui_path(given))
    if folder not in sys.path:
        sys.path.insert(0, folder)
    import comfy.cli_args

    accelerated = (
        torch.accelerator.is_available()
        if hasattr(torch, "accelerator")
        else torch.cuda.is_available()
    )
    comfy.cli_args.args.cpu = comfy.cli_args.args.cpu or not accelerated


def load_checkpoint(path: Path) -> tuple[ModelPatcher, CLIP, VAE]:
    """(MODEL, CLIP, VAE) of a checkpoint, by ComfyUI's own loader."""
    import comfy.sd

    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such checkpoint.")
    return comfy.sd.load_checkpoint_guess_config(str(path))[:3]


def load_parts(
    diffusion: Path, encoders: list[Path], kind: str, vae: Path | None, held: str = "default"
) -> tuple[ModelPatcher, CLIP, VAE | None]:
    """(MODEL, CLIP, VAE) from a file for each part, as ComfyUI's loaders of the parts do it.

    `kind` is the type in Load CLIP; `held` the weight_dtype in Load Diffusion Model. Without a file
    for it the VAE is None.
    """
    import comfy.sd
    import comfy.utils

    for file in filter(None, (diffusion, *encoders, vae)):
        if not file.is_file():
            raise FileNotFoundError(f"{file}: there is no such file.")
    kinds = {each.name.lower(): each for each in comfy.sd.CLIPType}
    if kind not in kinds:
        raise ValueError(
            f"{kind!r} is not a type of text encoder; the types are {', '.join(kinds)}."
        )
    told = {} if held == "default" else {"dtype": getattr(torch, held)}
    return (
        comfy.sd.load_diffusion_model(str(diffusion), model_options=told),
        comfy.sd.load_clip([str(file) for file in encoders], clip_type=kinds[kind]),
        comfy.sd.VAE(sd=comfy.utils.load_torch_file(str(vae))) if vae else None,
    )
