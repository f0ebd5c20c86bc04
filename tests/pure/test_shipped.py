"""What ships: the Registry's archive and the wheel hold the product.

It works from there, as in every server test.
"""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from modular_safety_lora.lab.server import PACK, install_pack

OURS_ALONE = ("lab", "tests", ".ci", "dev.py", "setup.py")


def run(*arguments, folder: Path = PACK, **environment) -> subprocess.CompletedProcess:
    kept = {
        name: value for name, value in os.environ.items() if name != "COMFYUI_PATH"
    } | environment
    return subprocess.run(
        [*map(str, arguments)], cwd=folder, env=kept, capture_output=True, text=True
    )


def listed(*options: str) -> set[str]:
    if not ((PACK / ".git").exists() and shutil.which("git")):
        pytest.skip("NO GIT CHECKOUT: what the archive holds follows from what git tracks")
    done = run("git", "ls-files", "-z", *options)
    assert done.returncode == 0, done.stderr
    return set(filter(None, done.stdout.split("\0")))


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    return install_pack(tmp_path_factory.mktemp("custom_nodes"))


def test_what_tests_install_is_the_registrys_archive(installed):
    """The archive is every tracked file that .comfyignore does not name.

    What is new here and not ignored goes in too.
    """
    archive = listed("-c", "-o", "--exclude-standard") - listed(
        "-c", "-o", "-i", "-X", ".comfyignore"
    )
    archive = {name for name in archive if (PACK / name).exists()}
    assert {
        path.relative_to(installed).as_posix() for path in installed.rglob("*") if path.is_file()
    } == archive
    assert not [name for name in archive if name.startswith(OURS_ALONE)]
    assert {
        "__init__.py",
        "install.py",
        "requirements.txt",
        "nodes/__init__.py",
        "web/docs/MSL_ModularMerge.md",
    } <= archive


@pytest.mark.slow
def test_the_command_runs_by_path_from_what_is_installed(installed, models_of_a_user):
    done = run(
        sys.executable,
        installed,
        "inspect",
        models_of_a_user / "lora.safetensors",
        folder=models_of_a_user,
    )
    assert done.returncode == 0 and "LoRA without a role" in done.stdout, done.stderr
    done = run(sys.executable, installed, "reproduce", folder=models_of_a_user)
    assert done.returncode == 1 and "run this in a clone of its repository" in done.stderr
    done = run(sys.executable, installed, "train-task", folder=models_of_a_user)
    assert done.returncode == 2 and "--checkpoint" in done.stderr
    script = installed / "training" / "train_safety_lora.py"
    done = run(
        sys.executable,
        script,
        "--checkpoint",
        "no.safetensors",
        "--output",
        "x.safetensors",
        folder=models_of_a_user,
    )
    assert done.returncode == 1 and "Nothing says where ComfyUI is" in done.stderr


@pytest.fixture
def models_of_a_user(tmp_path) -> Path:
    import torch
    from safetensors.torch import save_file

    save_file({"a.lora_up.weight": torch.ones(2, 2)}, tmp_path / "lora.safetensors")
    return tmp_path


@pytest.mark.slow
def test_the_wheel_holds_the_product(tmp_path):
    source = tmp_path / "source"
    for name in listed("-c", "-o", "--exclude-standard"):
        if (PACK / name).exists():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(PACK / name, source / name)
    build = (
        "-m",
        "pip",
        "wheel",
        "-q",
        "--no-deps",
        "--no-build-isolation",
        "--wheel-dir",
        tmp_path,
        source,
    )
    done = run(sys.executable, *build)
    assert done.returncode == 0, done.stderr[-2000:]
    (wheel,) = tmp_path.glob("*.whl")
    found = [name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name]
    names = {name.removeprefix("modular_safety_lora/") for name in found}
    assert not [name for name in names if name.startswith(OURS_ALONE)]
    data = {"audit/presets.json", "audit/page.html.j2", "host/prompts.json"}
    assert data | {"training/objectives/sdd.py", "commands/seal.py"} <= names
