"""`python dev.py test` and plain pytest run what is named from where it is named.

Or they say in a line what is missing.
"""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
from modular_safety_lora.lab.server import PACK

# dev.py's own command in this environment: nothing is installed or fetched
DEV = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv.pop(1))
import dev
dev.set_up, dev.venv_python = lambda: dev.HOST / "ComfyUI", lambda: sys.executable
sys.exit(dev.main())
"""


@pytest.fixture(scope="module")
def dev():
    spec = importlib.util.spec_from_file_location("dev", PACK / "dev.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(command: list, folder: Path, **environment) -> subprocess.CompletedProcess:
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in ("COMFYUI_PATH", "PYTHONSAFEPATH")
    }
    return subprocess.run(
        [sys.executable, *map(str, command)],
        cwd=folder,
        env=kept | environment,
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize(
    ("folder", "given", "expected"),
    [
        (".", ["tests/browser"], ["{}/tests/browser"]),
        ("tests", ["browser"], ["{}/tests/browser"]),
        (
            "tests/host",
            ["test_guard.py::test_x[a=b]"],
            ["{}/tests/host/test_guard.py::test_x[a=b]"],
        ),
        (
            "/",
            ["-x", "tests/browser", "host", "-q"],
            ["-x", "{}/tests/browser", "{}/tests/host", "-q"],
        ),
        (".", ["-k", "attack"], ["{}/tests", "-k", "attack"]),
        (".", ["-k", "tests", "--lf"], ["{}/tests", "-k", "tests", "--lf"]),
        (".", ["--ignore", "tests/browser"], ["{}/tests", "--ignore", "{}/tests/browser"]),
        (".", ["--ignore=tests/browser"], ["{}/tests", "--ignore={}/tests/browser"]),
        (".", ["tests/brwser"], ["{}/tests", "tests/brwser"]),
        (".", [], ["{}/tests"]),
    ],
)
def test_dev_hands_pytest_the_paths_that_are_named_and_else_all_tests(
    dev, monkeypatch, folder, given, expected
):
    monkeypatch.chdir(PACK / folder)
    assert dev.pytest_arguments(given) == [each.replace("{}", str(PACK)) for each in expected]


def test_dev_runs_one_folder_from_the_repositorys_root():
    done = run(
        ["-c", DEV, PACK, "test", "tests/pure/test_running.py", "--collect-only", "-q"], PACK
    )
    assert done.returncode == 0 and "pure/test_running.py::test_dev_runs_one_folder" in done.stdout
    assert "host/" not in done.stdout and "browser/" not in done.stdout


def test_pytest_from_the_root_finds_the_host_of_dev_or_says_what_to_do():
    done = run(["-m", "pytest", "tests/host/test_install.py", "--collect-only", "-q"], PACK)
    if (PACK / ".host" / "ComfyUI" / "main.py").is_file():
        assert done.returncode == 0 and "host/test_install.py::" in done.stdout
    else:
        assert done.returncode and "Nothing says where ComfyUI is" in done.stdout + done.stderr


@pytest.mark.parametrize("folder", [".", "tests"])
def test_a_host_that_is_not_there_is_one_line_that_says_what_to_do(tmp_path, folder):
    tests = PACK / "tests" / "host" / "test_install.py"
    done = run(
        ["-m", "pytest", tests, "--collect-only", "-q"], PACK / folder, COMFYUI_PATH=str(tmp_path)
    )
    said = done.stdout + done.stderr
    assert (
        done.returncode == 4
        and f"There is no ComfyUI in {str(tmp_path)!r}" in said
        and "COMFYUI_PATH." in said
    )
    assert "Traceback" not in said and "INTERNALERROR" not in said and len(said.splitlines()) < 8
