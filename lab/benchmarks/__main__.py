"""What things cost, by the name of a benchmark; `NAME --help` says what it measures.

    .venv/bin/python -m modular_safety_lora.lab.benchmarks NAME

A benchmark is a file here: its docstring, `FLAGS` (each by its default, or by what argparse is told
of it), and `main(options)`, which may give an exit code.
"""

import argparse
import importlib
import pkgutil
import sys

from ...host.comfyui import enter_comfyui
from . import __path__ as folder

HELPERS = ("__main__", "harness", "models", "training_world")
WITHOUT_COMFYUI = ("audit", "audit_folder", "detectors", "evidence", "first_result")
NAMES = [each.name for each in pkgutil.iter_modules(folder) if each.name not in HELPERS]
AS_WRITTEN = {"formatter_class": argparse.RawDescriptionHelpFormatter}


def main(arguments: list[str] | None = None) -> int:
    top = argparse.ArgumentParser(description=__doc__, **AS_WRITTEN)
    top.add_argument("name", choices=NAMES, metavar="NAME", help=", ".join(NAMES))
    top.add_argument("flags", nargs=argparse.REMAINDER, help="what the benchmark takes")
    chosen = top.parse_args(arguments)
    if chosen.name not in WITHOUT_COMFYUI:
        enter_comfyui()
    benchmark = importlib.import_module(f".{chosen.name}", __package__)
    parser = argparse.ArgumentParser(chosen.name, description=benchmark.__doc__, **AS_WRITTEN)
    for name, told in benchmark.FLAGS.items():
        how = told if isinstance(told, dict) else {"type": type(told), "default": told}
        parser.add_argument(f"--{name}", **how)
    return benchmark.main(parser.parse_args(chosen.flags)) or 0


if __name__ == "__main__":
    sys.exit(main())
