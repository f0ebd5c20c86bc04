"""ComfyUI's user folder, where the operator's settings and the evidence log lie."""

from pathlib import Path

from ..host.comfyui import comfyui_path


def user_folder(comfyui: str | None) -> Path:
    """The folder of a ComfyUI that was started without options for its folders.

    Raises SystemExit where nothing says which ComfyUI.
    """
    return comfyui_path(comfyui) / "user"
