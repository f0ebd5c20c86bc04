"""What ships: the Registry's archive holds the product.

It works from there, as in every server test. The wheel is in test_wheel.py.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hosting_page import steps_of_the_image
from modular_safety_lora.lab.server import PACK, install_pack

OURS_ALONE = ("lab", "tests", ".ci", "dev.py", "setup.py")
FOR_TRANSLATORS = ".po"
KINDS = (  # of files in the archive, by how their names end
    *(".py", ".json", ".md", ".jpg", ".svg", ".js", ".j2", ".csv", ".txt", ".toml", ".conf"),
    *(
        ".safetensors",
        ".onnx",
        "/Dockerfile",
        ".dockerignore",
        "LICENSE",
        ".gitignore",
        ".comfyignore",
        ".yml",
    ),
)


def run(
    *arguments, folder: Path = PACK, said: str | None = None, **environment
) -> subprocess.CompletedProcess:
    kept = {
        name: value for name, value in os.environ.items() if name != "COMFYUI_PATH"
    } | environment
    how = {"capture_output": True, "text": True, "input": said}
    return subprocess.run([*map(str, arguments)], cwd=folder, env=kept, **how)


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
    assert not [name for name in archive if not name.endswith(KINDS)]
    assert {
        "__init__.py",
        "install.py",
        "requirements.txt",
        "nodes/__init__.py",
        "web/docs/MSL_ModularMerge.md",
    } <= archive


def test_an_image_copies_nothing_that_git_leaves_out():
    """The pack's folder may hold a whole ComfyUI. Docker looks for the list beside its file."""
    told = (PACK / "docs" / "hosting" / "Dockerfile.dockerignore").read_text().splitlines()
    ignored = (PACK / ".gitignore").read_text().splitlines()
    assert {each.removeprefix("**/") for each in told} >= {".git/", *ignored}


def test_an_image_serves_as_an_account_that_does_not_own_its_settings():
    """What that account may write: live/test_image.py."""
    steps = steps_of_the_image()
    last = max(place for place, (what, _) in enumerate(steps) if what in ("RUN", "COPY"))
    assert [said for what, said in steps[last:] if what == "USER"] == ["comfyui"]


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


def test_what_ruffs_security_rules_say_of_it_is_what_the_page_says(installed):
    """A new finding is mended, or stands on the page with its reason."""
    asked = ("check", "--isolated", "--select", "S", "--output-format", "concise", ".")
    said = run(sys.executable, "-m", "ruff", *asked, folder=installed).stdout
    found = re.findall(r"^([\w/]+\.py):\d+:\d+: (S\d+)", said, re.MULTILINE)
    page = (PACK / "docs" / "security.md").read_text(encoding="utf-8")
    assert found and found == [(file, rule) for rule, file in re.findall(r"(S\d+) `([^`]+)`", page)]
