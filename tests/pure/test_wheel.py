"""The wheel: it holds the product, and its verbs run with what it declares and nothing else."""

import json
import shutil
import sys
import zipfile
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

import formats
import pytest
import torch
from modular_safety_lora.commands import VERBS
from modular_safety_lora.lab.server import PACK
from packaging.requirements import Requirement
from safetensors.torch import save_file
from test_shipped import FOR_TRANSLATORS, OURS_ALONE, listed, run

pytestmark = pytest.mark.slow
# In a process that sees the declared packages alone: a verb with its arguments a line of JSON in,
# its exit code and what it said a line out.
DRIVER = """
import contextlib, io, json, sys
from modular_safety_lora.commands import main
for line in sys.stdin:
    out, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):
        try:
            code = main(json.loads(line))
        except SystemExit as end:  # an exit code, or words for stderr
            code = end.code if isinstance(end.code, int) else print(end.code, file=errors) or 1
    print(json.dumps([code, out.getvalue(), errors.getvalue()]))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    for name in listed("-c", "-o", "--exclude-standard"):
        if (PACK / name).exists():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(PACK / name, source / name)
    quiet = ("-q", "--no-deps", "--no-build-isolation", "--wheel-dir", folder)
    done = run(sys.executable, "-m", "pip", "wheel", *quiet, source)
    assert done.returncode == 0, done.stderr[-2000:]
    (made,) = folder.glob("*.whl")
    return made


@pytest.fixture(scope="module")
def bare(wheel, tmp_path_factory) -> Path:
    """A folder with the wheel, and links to what it requires, and to what that requires."""
    folder = tmp_path_factory.mktemp("bare")
    zipfile.ZipFile(wheel).extractall(folder)
    (about,) = folder.glob("*.dist-info")
    for each in required(Distribution.at(about)):
        for name in {file.parts[0] for file in each.files or () if file.parts[0] != ".."}:
            place = Path(each.locate_file(name))
            if name != "__pycache__" and not (folder / name).exists():
                (folder / name).symlink_to(place.resolve())
    return folder


def required(top: Distribution) -> list[Distribution]:
    """The packages that one brings with it, at any remove, without its extras."""
    found: dict[str, Distribution] = {}
    todo = [top]
    while todo:
        for text in todo.pop().requires or ():
            wanted = Requirement(text)
            if wanted.name in found or (
                wanted.marker and not wanted.marker.evaluate({"extra": ""})
            ):
                continue
            try:
                found[wanted.name] = distribution(wanted.name)
            except PackageNotFoundError:  # torch's own for another system
                continue
            todo.append(found[wanted.name])
    return list(found.values())


def ran(bare: Path, folder: Path, *commands: list) -> list[tuple[int, str, str]]:
    """(exit code, stdout, stderr) of each command, in one Python without its own packages."""
    said = "".join(json.dumps([*map(str, each)]) + "\n" for each in commands)
    start = [sys.executable, "-S", "-c", DRIVER]
    done = run(*start, folder=folder, said=said, PYTHONPATH=str(bare), PYTHONSAFEPATH="1")
    assert done.returncode == 0, done.stderr[-2000:]
    return [tuple(json.loads(line)) for line in done.stdout.splitlines()]


def test_it_holds_the_product(wheel):
    found = [name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name]
    names = {name.removeprefix("modular_safety_lora/") for name in found}
    assert not [name for name in names if name.startswith(OURS_ALONE)]
    assert not [name for name in names if name.endswith(FOR_TRANSLATORS)]
    rooms = [each for each in listed("-c") if (PACK / each.split("/")[0] / "__init__.py").exists()]
    wanted = {each for each in rooms if not each.startswith(OURS_ALONE) and (PACK / each).exists()}
    assert len(wanted) > 300
    left_out = (FOR_TRANSLATORS, "by_path/modular_safety_lora.py")  # which is for a folder of nodes
    assert not {each for each in wanted - names if not each.endswith(left_out)}


def test_every_verb_starts_with_what_it_declares_alone(bare, tmp_path):
    for verb, (code, out, errors) in zip(
        VERBS, ran(bare, tmp_path, *([verb, "--help"] for verb in VERBS)), strict=True
    ):
        assert code == 0 and out.startswith("usage: "), (verb, errors[-500:])


def test_its_verbs_work_or_say_what_to_install(bare, tmp_path):
    tensors = formats.Lora({"diffusion_model.a": torch.Size((4, 4))}, 1).tensors()
    save_file(tensors, tmp_path / "lora.safetensors")
    (tmp_path / "pictures").mkdir()
    seal = ["seal", "lora.safetensors", "--concept", "weapons", "--output", "safety.safetensors"]
    sealed, told, key, audit, probe = ran(
        bare,
        tmp_path,
        seal,
        ["inspect", "safety.safetensors"],
        ["new-key", "key.pem"],
        ["audit", "pictures", "--output", "report.json"],
        ["probe", "lora.safetensors", "--checkpoint", "x", "--safety-lora", "safety.safetensors"],
    )
    assert sealed[0] == 0 and told[0] == 0 and "weapons" in told[1]
    ways_out = {"pip install": key, "install": audit, "--comfyui": probe}
    for way_out, (code, _, errors) in ways_out.items():
        assert code == 1 and way_out in errors and "Traceback" not in errors, errors
