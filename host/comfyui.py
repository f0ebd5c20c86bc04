"""The real ComfyUI in this process, for the command lines, the demo and the tests."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:  # what it imports is not known before `enter_comfyui`
    from comfy.clip_vision import ClipVisionModel
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
    return comfy.sd.load_checkpoint_guess_config(
        str(path), embedding_directory=embedding_folders()
    )[:3]


def load_parts(
    diffusion: Path, encoders: list[Path], kind: str, vae: Path | None, held: str = "default"
) -> tuple[ModelPatcher, CLIP, VAE | None]:
    """(MODEL, CLIP, VAE) from a file for each part, as ComfyUI's loaders of the parts do it.

    `kind` is the type in Load CLIP; `held` the weight_dtype in Load Diffusion Model. Without a file
    for it the VAE is None.
    """
    import comfy.sd
    import comfy.utils

    _check_there(diffusion, *encoders, *([vae] if vae else []))
    told = {} if held == "default" else {"dtype": getattr(torch, held)}
    clip = load_clip(encoders, kind)
    return (
        comfy.sd.load_diffusion_model(str(diffusion), model_options=told),
        clip,
        comfy.sd.VAE(sd=comfy.utils.load_torch_file(str(vae))) if vae else None,
    )


def load_clip(encoders: list[Path], kind: str) -> CLIP:
    """CLIP, as Load CLIP makes it; `kind` is its type there."""
    import comfy.sd

    _check_there(*encoders)
    kinds = {each.name.lower(): each for each in comfy.sd.CLIPType}
    if kind not in kinds:
        raise ValueError(
            f"{kind!r} is not a type of text encoder; the types are {', '.join(kinds)}."
        )
    files = [str(file) for file in encoders]
    return comfy.sd.load_clip(files, clip_type=kinds[kind], embedding_directory=embedding_folders())


def embedding_folders() -> list[str]:
    """Where prompts find the embeddings that they name; elsewhere a name would be spelled."""
    import folder_paths

    return folder_paths.get_folder_paths("embeddings")


def load_clip_text(file: Path, kind: str) -> CLIP:
    """The text encoder of a CLIP with its projection. Raises ValueError for another kind of file.

    ComfyUI makes a text encoder of any file, and leaves empty what is not in it.
    """
    import comfy.utils

    _check_there(file)
    names = comfy.utils.load_torch_file(str(file)).keys()
    for part in ("token_embedding", "text_projection"):
        if not any(part in name for name in names):
            raise ValueError(
                f"{file}: it has no {part}. Choose the text encoder of the same CLIP, such as"
                " clip_l.safetensors."
            )
    return load_clip([file], kind)


def load_clip_vision(file: Path) -> ClipVisionModel:
    """CLIP_VISION, as Load CLIP Vision makes it. Raises ValueError for another kind of file."""
    import comfy.clip_vision

    _check_there(file)
    found = comfy.clip_vision.load(str(file))
    if found is None:
        raise ValueError(f"{file}: no CLIP vision model is in it. Choose one such as ViT-L-14.")
    return found


def _check_there(*files: Path) -> None:
    for file in files:
        if not file.is_file():
            raise FileNotFoundError(f"{file}: there is no such file.")
