"""Show how LoRAs pull against a safety module, and which of them undo it.

    python custom_nodes/modular-safety-lora interference loras/ --checkpoint base.safetensors \\
        --safety-lora safety.safetensors --output chart.png

Every LoRA is merged alone with the safety modules, at strength 1. The exit code is 1 when one of
them undoes the safety module (retained safety under 0.9, or under 0.5 in a layer).
"""

import argparse
import json
from collections import Counter
from pathlib import Path

from ..host.comfyui import enter_comfyui
from ..modules.files import load_safety, load_task
from ..modules.sealing import files_of
from ..storage.whole import write_picture
from .base import add_base, load_base
from .kinds import file_named


def options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("paths", nargs="+", type=Path, metavar="LORA", help="LoRA files, or folders of them")
    add_base(parser, vae=False)
    add(
        "--safety-lora",
        type=Path,
        action="append",
        required=True,
        help="a sealed safety module; may be repeated",
    )
    add(
        "--comfyui",
        help="ComfyUI's folder; COMFYUI_PATH, or the one that this pack lies in, otherwise",
    )
    add("--output", type=file_named(".png"), help="the picture to write, PNG")
    add("--json", action="store_true", help="print everything as JSON, a line for each LoRA")


def work(options: argparse.Namespace) -> int:
    enter_comfyui(options.comfyui)
    from ..merge.entries import Task
    from ..merge.interference import picture
    from ..merge.merge import merge

    model, clip, _ = load_base(options)
    safety = [load_safety(path, path.name) for path in options.safety_lora]
    held, found, beside = {path.resolve() for path in options.safety_lora}, [], {}
    paths = [path for path in files_of(options.paths) if path.resolve() not in held]
    shared = [name for name, count in Counter(path.name for path in paths).items() if count > 1]
    for path in paths:
        name = path.as_posix() if path.name in shared else path.name  # one name, one module
        try:
            merged = merge(model, safety, [Task(load_task(path, name))], clip)
        except (ValueError, RuntimeError) as error:
            found.append({"name": name, "error": " ".join(str(error).split())})
            continue
        module = merged.report["modules"][len(safety)]
        undone = bool(merged.report["to_blame"])
        found.append(
            {
                "name": name,
                "undone": undone,
                **{k: module[k] for k in ("relative_size", "interference")},
            }
        )
        beside |= merged.beside
    for each in found:
        print(json.dumps(each) if options.json else _line(each))
    if options.output:
        write_picture(options.output, picture(beside))
    return 1 if any(each.get("undone") for each in found) else 0


def _line(found: dict) -> str:
    from ..merge.interference import short

    if "error" in found:
        return f"{found['name']}: {found['error']}"
    pull = found["interference"]
    if pull is None:
        return f"{found['name']}: changes no layer that the safety module changes"
    worst = next(iter(pull["worst_layers"].items()))
    verdict = "UNDOES the safety module" if found["undone"] else "works beside it"
    return (
        f"{found['name']}: {verdict}; retained safety {pull['retained_safety']:.3f}, cosine"
        f" {pull['cosine']:+.3f}, relative size {found['relative_size']:.3g}, least {worst[1]:.3f}"
        f" in {short(worst[0])}"
    )
