"""Show how LoRAs pull against a safety LoRA, and which of them undo it.

    python custom_nodes/modular-safety-lora interference loras/ --checkpoint base.safetensors \\
        --safety-lora safety.safetensors --output chart.png

Every LoRA is merged alone with the safety LoRAs, at strength 1. The exit code is 1 when one of
them undoes the safety LoRA (retained safety under 0.9 over its weights, or too little left in
what the network computes), or could not be looked at.
"""

import argparse
import json

from ..host.comfyui import enter_comfyui
from ..merge.settings import Merging
from ..modules.files import load_task
from ..storage.whole import write_picture
from .base import add_loras, load_base, loras_of, safety_of
from .flags import add_flags, taken
from .kinds import file_named
from .terminal import Bar, close_bars


def options(parser: argparse.ArgumentParser) -> None:
    add_loras(parser)
    add_flags(parser, Merging)
    add = parser.add_argument
    add("--output", type=file_named(".png"), help="the picture to write, PNG")
    add("--json", action="store_true", help="print everything as JSON, one line per LoRA")


def work(options: argparse.Namespace) -> int:
    (how,) = taken(options, Merging)
    enter_comfyui(options.comfyui)
    from ..merge.entries import Task
    from ..merge.interference import picture
    from ..merge.merge import merge

    model, clip, _ = load_base(options)
    safety = safety_of(options)
    paths, found, layers = loras_of(options), [], {}
    bar = Bar("Merging", "LoRAs", len(paths))
    for number, (name, path) in enumerate(paths.items()):
        bar(number, len(paths))
        try:
            merged = merge(model, safety, [Task(load_task(path, name))], clip, **vars(how))
        except (ValueError, RuntimeError) as error:
            found.append({"name": name, "error": " ".join(str(error).split())})
            continue
        module = merged.report["modules"][len(safety)]
        undone = bool(merged.report["to_blame"])
        found.append(
            {
                "name": name,
                "undone": undone,
                "retained_in_function": merged.report["retained_in_function"],
                **{k: module[k] for k in ("relative_size", "interference")},
            }
        )
        layers |= merged.interference
    close_bars()
    for each in found:
        print(json.dumps(each) if options.json else _line(each))
    if options.output:
        write_picture(options.output, picture(layers))
    return 1 if any(each.get("undone", True) for each in found) else 0


def _line(found: dict) -> str:
    from ..merge.interference import layer_label

    if "error" in found:
        return f"{found['name']}: {found['error']}"
    pull, left = found["interference"], found["retained_in_function"]
    verdict = "UNDOES the safety LoRA" if found["undone"] else "works beside it"
    asked = "" if left is None else f"; {left:.3f} of it left in what the network computes"
    if pull is None:
        return f"{found['name']}: {verdict}; changes no layer that the safety LoRA changes{asked}"
    worst = next(iter(pull["worst_layers"].items()))
    return (
        f"{found['name']}: {verdict}; retained safety {pull['retained_safety']:.3f}, cosine"
        f" {pull['cosine']:+.3f}, relative size {found['relative_size']:.3g}, least {worst[1]:.3f}"
        f" in {layer_label(worst[0])}{asked}"
    )
