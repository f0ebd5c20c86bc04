"""`python dev.py gpu`: what only a machine with CUDA can show, as one JSON and a table.

    python dev.py gpu [--output gpu-output] [--steps 20] [--device cuda]

Both trainers on small models whose weights are held in fp16, bf16, fp8 storage and comfy_quant fp8,
with the time and the peak memory of a step; a step of ComfyUI's own trainer on the same layers; a
merge whose safety change is weighed in the weights that compute, in memory and streaming, and its
lock; the same under ComfyUI's dynamic patcher, in every quantised format; the shipped workflow on a
live server with ComfyUI's defaults; the detector on CUDA against the same on the CPU. A row that
fails says why, and the command ends with 1. `--device cpu` runs the same rows on the CPU, to try
the command itself.
"""

import argparse
import json
import platform
import sys
import time
import traceback
from pathlib import Path

from ...drawing.markdown import table
from ...host.comfyui import enter_comfyui
from ...storage.whole import write_text
from ..server import PACK


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, default=PACK / "gpu-output")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--only", default="", help="rows that have this in their title")
    options = parser.parse_args(arguments)
    import torch

    if options.device == "cuda" and not torch.cuda.is_available():
        print(
            "gpu: torch finds no CUDA device here (`nvidia-smi` says whether there is one).",
            file=sys.stderr,
        )
        return 1
    enter_comfyui()
    from .rows import rows_on

    rows = []
    for title, what, work in rows_on(torch.device(options.device), options.steps):
        if options.only not in f"{title}: {what}":
            continue
        print(f"{title}: {what} ...", flush=True)
        start = time.perf_counter()
        try:
            found = {"works": True, **work()}
        except Exception as error:  # a row that fails is a finding, and the others go on
            traceback.print_exc()
            found = {"works": False, "error": f"{type(error).__name__}: {error}".splitlines()[0]}
        took = round(time.perf_counter() - start, 1)
        rows.append({"title": title, "what": what, **found, "seconds": took})
    report = {"machine": _machine(torch, options.device), "rows": rows}
    options.output.mkdir(parents=True, exist_ok=True)
    write_text(options.output / "gpu.json", json.dumps(report, indent=1) + "\n")
    write_text(options.output / "gpu.md", _table(report))
    print((options.output / "gpu.md").read_text(encoding="utf-8"))
    return int(not all(row["works"] for row in rows))


def _machine(torch, device: str) -> dict:
    import comfyui_version

    card = torch.cuda.get_device_name() if device == "cuda" else platform.processor() or "CPU"
    versions = {"torch": torch.__version__, "comfyui": comfyui_version.__version__}
    return {
        "device": card,
        "cuda": torch.version.cuda,
        **versions,
        "python": platform.python_version(),
    }


def _table(report: dict) -> str:
    told = ", ".join(f"{name} {value}" for name, value in report["machine"].items() if value)
    rows = []
    for row in report["rows"]:
        rest = {k: v for k, v in row.items() if k not in ("title", "what", "works")}
        figures = ", ".join(f"{name} {value}" for name, value in rest.items())
        rows.append([row["title"], row["what"], "yes" if row["works"] else "**no**", figures])
    head = [f"# On {report['machine']['device']}", "", f"Made by `python dev.py gpu`: {told}.", ""]
    return "\n".join([*head, *table(["", "", "works", "figures"], rows), ""])


if __name__ == "__main__":
    sys.exit(main())
