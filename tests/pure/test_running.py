"""`python dev.py test` and plain pytest run what is named from where it is named.

Or they say in a line what is missing.
"""

import importlib.util
import os
import subprocess
import sys
import venv
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


@pytest.mark.slow
@pytest.mark.long
def test_quick_runs_nothing_long_and_lets_python_keep_what_it_compiled():
    code = f"""
import os, subprocess
def done(command, env, **_):
    if "pytest" in command:
        print(command[command.index("-m", 3) + 1], "PYTHONDONTWRITEBYTECODE" in env)
    return subprocess.CompletedProcess(command, 0)
subprocess.run = done
os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
{DEV}"""
    said = run(["-c", code, PACK, "test", "quick"], PACK).stdout.split()
    assert said.pop() == "False"
    tests = [PACK / "tests" / "pure", "-m", f"long and {' '.join(said)}"]
    found = run(["-m", "pytest", *tests, "--collect-only", "-q"], PACK)
    assert found.returncode == pytest.ExitCode.NO_TESTS_COLLECTED, found.stdout


def test_pytest_from_the_root_finds_the_host_of_dev_or_says_what_to_do():
    tests = ("tests/host/test_install.py", "tests/live/test_server.py")
    done = run(["-m", "pytest", *tests, "--collect-only", "-q"], PACK)
    if (PACK / ".host" / "ComfyUI" / "main.py").is_file():
        assert done.returncode == 0, done.stdout
        assert "host/test_install.py::" in done.stdout and "live/test_server.py::" in done.stdout
    else:
        assert done.returncode and "Nothing says where ComfyUI is" in done.stdout + done.stderr


def test_no_folder_of_tests_stands_in_the_place_of_a_module_of_comfyui():
    """One named `server` did: the tiers could not be collected together."""
    place = os.environ.get("COMFYUI_PATH")
    if not place:
        pytest.skip("NO COMFYUI: the names of its modules are not known here")
    theirs = {
        each.stem for each in Path(place).iterdir() if each.is_dir() or each.suffix == ".py"
    } - {"tests"}
    assert {"server", "nodes", "comfy"} <= theirs
    own = {each.stem for each in (PACK / "tests").iterdir()} - {"__pycache__"}
    assert own & theirs == set()


@pytest.mark.parametrize("folder", [".", pytest.param("tests", marks=pytest.mark.long)])
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


def test_a_setup_that_was_stopped_before_it_had_pip_begins_again(dev, tmp_path, monkeypatch):
    monkeypatch.setattr(dev, "VENV", tmp_path / "none")
    assert not dev.has_pip()
    monkeypatch.setattr(dev, "VENV", tmp_path / "stopped")
    venv.create(tmp_path / "stopped", with_pip=False)
    assert dev.venv_python().exists() and not dev.has_pip()
    monkeypatch.setattr(dev, "venv_python", lambda: Path(sys.executable))
    assert dev.has_pip()


def test_what_a_long_command_does_is_shown_while_it_works(dev, monkeypatch, capsys):
    talks = "print('Collecting torch'); print('Downloading torch (900 MB)')"
    dev.run([sys.executable, "-c", talks])
    assert capsys.readouterr().out == "", "a log has the steps alone"
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    dev.run([sys.executable, "-c", talks])
    assert "Downloading torch (900 MB)" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        dev.run([sys.executable, "-c", f"{talks}; raise SystemExit('no space left')"])
    said = capsys.readouterr()
    assert "no space left" in said.out and "exit code 1" in said.err


def test_who_stops_it_is_told_that_it_goes_on():
    stopped = f"""
import runpy, sys, venv
sys.argv = ["dev.py", "setup"]
def stop(*_, **__): raise KeyboardInterrupt
import pathlib
pathlib.Path.exists = stop
runpy.run_path({str(PACK / "dev.py")!r}, run_name="__main__")
"""
    done = run(["-c", stopped], PACK)
    assert done.returncode == 130
    assert done.stderr.splitlines() == ["dev.py: stopped; the same command goes on from here."]


def test_without_a_browser_the_suite_says_so_before_it_runs(monkeypatch, request):
    conftest = request.config.pluginmanager.get_plugin(str(PACK / "tests" / "conftest.py"))
    monkeypatch.setattr(conftest.frontend, "chromium", lambda: None)
    assert "NO BROWSER" in conftest.pytest_report_header()
    monkeypatch.setattr(conftest.frontend, "chromium", lambda: "/usr/bin/chromium")
    assert conftest.pytest_report_header() is None
