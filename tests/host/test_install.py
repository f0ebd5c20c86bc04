"""Installing the detector beside builds of other packs: nothing of theirs may change.

The wheels are real, and the venv is new.
"""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest
from modular_safety_lora.lab.server import PACK

# What other packs bring: another build of onnxruntime, and what it then runs on; another OpenCV.
# Without a GPU the GPU build's provider does not load, and the CPU takes its place.
BUILDS = {
    "onnxruntime-openvino": ("OpenVINOExecutionProvider",),
    "onnxruntime-gpu": ("CUDAExecutionProvider", "CPUExecutionProvider"),
}
if sys.platform == "darwin":  # neither is built for it
    BUILDS = {"onnxruntime": ("CoreMLExecutionProvider", "CPUExecutionProvider")}
OPENCV = "opencv-contrib-python"
# What matplotlib asks for besides numpy; none of it replaces a build of anything.
CHART = {
    "contourpy",
    "cycler",
    "fonttools",
    "kiwisolver",
    "packaging",
    "pillow",
    "pyparsing",
    "python-dateutil",
    "six",
    "tzdata",
}
VERSIONS = """
import json
from importlib.metadata import distributions
print(json.dumps({dist.metadata["Name"].lower(): dist.version for dist in distributions()}))
"""
BROUGHT = ("pillow", "pydantic")  # by ComfyUI, among others
DETECT = """
import sys, numpy
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from modular_safety_lora.audit.detectors.registry import find
detector = find()
print(detector.detect([numpy.load(sys.argv[2])])[0][0]["class"], "on", detector.provider)
"""


def python(folder: Path, *arguments: str) -> str:
    binary = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    done = subprocess.run(
        [str(binary), *arguments],
        capture_output=True,
        text=True,
        env=os.environ | {"PIP_COMPILE": "0", "PIP_DISABLE_PIP_VERSION_CHECK": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def install(folder: Path, *packages: str) -> None:
    python(folder, "-m", "pip", "install", "-q", *packages)


def versions(folder: Path) -> dict[str, str]:
    return json.loads(python(folder, "-c", VERSIONS))


def detects(folder: Path, tmp_path: Path) -> str:
    import numpy
    from skimage.data import astronaut

    numpy.save(tmp_path / "face.npy", astronaut())
    nodes = tmp_path / "custom_nodes"
    nodes.mkdir(exist_ok=True)
    if not (nodes / "modular_safety_lora").exists():
        (nodes / "modular_safety_lora").symlink_to(PACK, target_is_directory=True)
    return python(folder, "-c", DETECT, str(nodes), str(tmp_path / "face.npy")).strip()


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """A new environment with what ComfyUI brings."""
    folder = tmp_path_factory.mktemp("installed") / "venv"
    venv.create(folder, with_pip=True)
    install(folder, "numpy<2.4", *BROUGHT)
    return folder


@pytest.fixture
def bare(environment, tmp_path):
    """A copy of it for one test: pip writes over no file, so that links are enough."""
    return shutil.copytree(environment, tmp_path / "venv", symlinks=True, copy_function=os.link)


def test_a_bare_environment_gets_what_is_missing_and_keeps_its_numpy(bare, tmp_path):
    before = versions(bare)
    with pytest.raises(
        AssertionError, match=r"DetectorMissing: The audit needs NudeNet.*nudenet is not installed"
    ):
        detects(bare, tmp_path)
    python(bare, str(PACK / "install.py"))
    after = versions(bare)
    assert after["numpy"] == before["numpy"]
    assert {"nudenet", "onnxruntime", "opencv-python-headless"} <= set(
        after
    ) and "torch" not in after
    assert detects(bare, tmp_path) == "FACE_FEMALE on CPUExecutionProvider"


TRIED = [pytest.param(each, marks=pytest.mark.long) for each in BUILDS]


@pytest.mark.parametrize("build", TRIED)
def test_other_builds_of_onnxruntime_and_opencv_stay_and_are_used(bare, tmp_path, build):
    install(bare, build, OPENCV)
    before = versions(bare)
    python(bare, str(PACK / "install.py"))
    after = versions(bare)
    assert {name: after.get(name) for name in before} == before
    assert set(after) - set(before) - CHART == {"nudenet", "peft", "accelerate", "matplotlib"}
    assert detects(bare, tmp_path) in [f"FACE_FEMALE on {provider}" for provider in BUILDS[build]]
    assert python(bare, str(PACK / "install.py")) == "", "the second time there is nothing to do"


def test_a_package_that_cannot_be_had_keeps_no_other_out(monkeypatch, capsys):
    """pip refuses whole calls: it is asked for each of the others alone."""
    spec = importlib.util.spec_from_file_location("install", PACK / "install.py")
    installer = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(installer)
    monkeypatch.setattr(installer.importlib.util, "find_spec", lambda name: None)
    calls = []

    def pip(command: list[str]) -> subprocess.CompletedProcess:
        calls.append(command[command.index("--constraint") + 2 :])
        return subprocess.CompletedProcess(command, int("onnxruntime" in command))

    monkeypatch.setattr(installer.subprocess, "run", pip)
    assert installer.main() == 1
    together = ["opencv-python-headless", "onnxruntime", "matplotlib"]
    alone = [[each] for each in together]
    assert calls == [together, *alone, ["--no-deps", "nudenet", "peft", "accelerate"]]
    told = capsys.readouterr().out
    assert told.count("could not install") == 1 and "could not install onnxruntime;" in told
