"""What ships: the Registry's archive and the wheel hold the product.

It works from there, as in every server test.
"""

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from modular_safety_lora.lab.server import PACK, install_pack

OURS_ALONE = ("lab", "tests", ".ci", "dev.py", "setup.py")
FOR_TRANSLATORS = ".po"


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
    assert not [name for name in archive if name.endswith(FOR_TRANSLATORS)]
    assert {
        "__init__.py",
        "install.py",
        "requirements.txt",
        "nodes/__init__.py",
        "web/docs/MSL_ModularMerge.md",
    } <= archive


@pytest.mark.slow
def test_what_is_missing_is_said_in_a_line(installed, tmp_path):
    """What a command does by path is in host/test_page_commands.py."""
    for verb in ("seal", "audit"):  # for a Python that has nothing
        done = run(sys.executable, "-S", installed, verb, folder=tmp_path)
        assert done.returncode == 1 and done.stderr.count("\n") == 1, done.stderr
        assert "No module named" in done.stderr and "with ComfyUI's Python" in done.stderr
    done = run(sys.executable, installed, "reproduce", folder=tmp_path)
    assert done.returncode == 1 and "run this in a clone of its repository" in done.stderr
    script = installed / "training" / "train_safety_lora.py"
    asked = ("--checkpoint", "no.safetensors", "--output", "x.safetensors")
    done = run(sys.executable, script, *asked, folder=tmp_path)
    assert done.returncode == 1 and "Nothing says where ComfyUI is" in done.stderr


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
    assert not [name for name in names if name.endswith(FOR_TRANSLATORS)]
    data = {"audit/presets.json", "audit/page.html.j2", "host/prompts.json"}
    assert data | {"training/objectives/sdd.py", "commands/seal.py"} <= names


def test_what_ruffs_security_rules_say_of_it_is_what_the_page_says(installed):
    """A new finding is mended, or stands on the page with its reason."""
    asked = ("check", "--isolated", "--select", "S", "--output-format", "concise", ".")
    said = run(sys.executable, "-m", "ruff", *asked, folder=installed).stdout
    found = re.findall(r"^([\w/]+\.py):\d+:\d+: (S\d+)", said, re.MULTILINE)
    page = (PACK / "docs" / "security.md").read_text(encoding="utf-8")
    assert found and found == [(file, rule) for rule, file in re.findall(r"(S\d+) `([^`]+)`", page)]
