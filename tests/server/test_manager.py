"""ComfyUI-Manager's own command line installs the pack from a git address, updates and removes it.

Offline: the address is a repository on this machine.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from modular_safety_lora.host.comfyui import comfyui_path
from modular_safety_lora.lab import assets, shipped
from modular_safety_lora.lab.server import MADE_HERE, PACK, PACK_NAME, Server, place_models
from prompting import run

OWN = ("custom_nodes", "models", "input", "output", "temp", "user")  # of a base folder
AUTHOR = ("-c", "user.name=Test", "-c", "user.email=test@example.invalid")


def git(folder: Path, *words: str) -> None:
    subprocess.run(["git", *AUTHOR, *words], cwd=folder, check=True, capture_output=True)


@pytest.fixture(scope="module")
def origin(tmp_path_factory):
    """A git repository with this pack, as it is in this folder."""
    folder = tmp_path_factory.mktemp("origin") / PACK_NAME
    shutil.copytree(PACK, folder, ignore=shutil.ignore_patterns(*MADE_HERE, "lab", "tests"))
    git(folder, "init", "--initial-branch", "main")
    git(folder, "add", "--all")
    git(folder, "commit", "--message", "The pack")
    return folder


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """A ComfyUI of its own without any node pack: the host's files, and empty folders."""
    folder = tmp_path_factory.mktemp("managed")
    for entry in comfyui_path().iterdir():
        if entry.is_file():  # by a link's target the host would find its own folders
            shutil.copy(entry, folder)
        elif entry.name not in (*OWN, ".git"):
            (folder / entry.name).symlink_to(entry)
    (folder / "custom_nodes").mkdir()
    return folder


def manager(folder: Path, *words: str) -> str:
    """What the Manager's command line says."""
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
    assert done.returncode == 0, said
    return said


def test_install_run_update_and_removal(origin, bare, models):
    pack = bare / "custom_nodes" / PACK_NAME
    said = manager(bare, "install", f"file://localhost{origin}")
    assert "Installation was successful" in said and (pack / "__init__.py").is_file()

    place_models(models, bare)
    with Server(bare, install=False) as server:
        log = server.log.read_text(errors="replace").split("To see the GUI go to")[0]
        assert "IMPORT FAILED" not in log
        name = "Modular merge and audit"
        assert name in server.get("/workflow_templates").json()[PACK_NAME]
        outcome = run(server, shipped.prompt(name, side=64, steps=1))
    assert outcome.error is None, outcome.error
    texts = [shown["text"][0] for shown in outcome.outputs.values() if "text" in shown]
    assert any("The safety LoRA holds" in text for text in texts)

    project = origin / "pyproject.toml"
    project.write_text(project.read_text(encoding="utf-8") + "# newer\n", encoding="utf-8")
    git(origin, "commit", "--all", "--message", "Newer")
    assert "UPDATED" in manager(bare, "update", PACK_NAME)
    assert (pack / "pyproject.toml").read_text(encoding="utf-8").endswith("# newer\n")

    assert "UNINSTALLED" in manager(bare, "uninstall", PACK_NAME)
    assert not pack.exists()
    assert (bare / "models" / "loras" / assets.SAFETY).is_file(), "what a user made stays"
