"""A ComfyUI of its own, and this pack installed into it by ComfyUI-Manager's own command line.

Offline: the address that the Manager is given is a git repository on this machine.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from ..host.comfyui import comfyui_path
from .server import MADE_HERE, PACK, PACK_NAME

OWN = ("custom_nodes", "models", "input", "output", "temp", "user")  # of a base folder
AUTHOR = ("-c", "user.name=Test", "-c", "user.email=test@example.invalid")


def git(folder: Path, *words: str) -> None:
    subprocess.run(["git", *AUTHOR, *words], cwd=folder, check=True, capture_output=True)


def origin(folder: Path) -> str:
    """Make a git repository with this pack, as it is now, in `folder`; its address."""
    place = folder / PACK_NAME
    shutil.copytree(PACK, place, ignore=shutil.ignore_patterns(*MADE_HERE, "lab", "tests"))
    git(place, "init", "--initial-branch", "main")
    git(place, "add", "--all")
    git(place, "commit", "--message", "The pack")
    return f"file://localhost{place}"


def bare(folder: Path) -> None:
    """Make `folder` a ComfyUI without any node pack: the host's files, and empty folders."""
    for entry in comfyui_path().iterdir():
        if entry.is_file():  # by a link's target the host would find its own folders
            shutil.copy(entry, folder)
        elif entry.name not in (*OWN, ".git"):
            (folder / entry.name).symlink_to(entry)
    (folder / "custom_nodes").mkdir()


def manager(folder: Path, *words: str) -> str:
    """What the Manager's command line says; raises RuntimeError with it when it fails."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONSAFEPATH"}
    done = subprocess.run(
        [sys.executable, "-m", "cm_cli", *words],
        cwd=folder,
        env=environment | {"COMFYUI_PATH": str(folder)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    said = done.stdout + done.stderr
    if done.returncode:
        raise RuntimeError(said)
    return said
