"""The real ComfyUI in this process, on the CPU."""

import os
import sys
from pathlib import Path


def comfyui_path() -> Path:
    """ComfyUI's folder, from COMFYUI_PATH (dev.py sets it)."""
    given = os.environ.get("COMFYUI_PATH")
    if not given or not Path(given, "main.py").is_file():
        raise SystemExit("COMFYUI_PATH does not name a folder with ComfyUI in it; start this with `python dev.py`.")
    return Path(given)


def enter_comfyui() -> None:
    """Make `import comfy` work here, on the CPU. Call it before anything of ComfyUI is imported."""
    folder = str(comfyui_path())
    if folder not in sys.path:
        sys.path.insert(0, folder)
    import comfy.cli_args

    comfy.cli_args.args.cpu = True
