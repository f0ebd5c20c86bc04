"""How task modules pull against safety modules, as a picture and for a folder of LoRAs.

    python -m modular_safety_lora.modular.interference LORA_OR_FOLDER... --checkpoint C --safety-lora S [--output CHART.png]

Every LoRA is merged alone with the safety modules, at strength 1. The exit code is 1 when one of them undoes the safety
module (retained safety under 0.9, or under 0.5 in a layer).
"""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from PIL import Image, ImageDraw

INK, GRID, HELD, LOW, UNDONE = "#1f2933", "#d9dee4", "#0d9488", "#d97706", "#c2410c"
SHOWN = 30  # layers of one module in the picture: those where least is left


def picture(beside: Mapping[str, Mapping[str, float]]) -> Image.Image:
    """Bars of the retained safety of each layer, for each module by name: its least 30 layers, least on top.

    1.0 is untouched; green at least 0.9, amber less, red under 0.5. Without matplotlib the picture says how to get it.
    """
    if not beside:
        return _words("No module changes a layer that the safety module changes.")
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        return _words(f"The picture needs matplotlib ({error}). Run install.py in the pack's folder.")
    import numpy as np

    from .measure import LAYER_THRESHOLD, THRESHOLD  # here: the command line enters ComfyUI first

    rows = [min(len(layers), SHOWN) for layers in beside.values()]
    figure = Figure(figsize=(12, 1.2 * len(rows) + 0.24 * sum(rows)), dpi=100, facecolor="white", layout="constrained")
    panels = figure.subplots(len(rows), 1, sharex=True, squeeze=False, height_ratios=[row + 4 for row in rows])[:, 0]
    for axes, (name, layers) in zip(panels, beside.items(), strict=True):
        shown = sorted(layers.items(), key=lambda item: item[1])[:SHOWN]
        values = [value for _, value in shown]
        colours = [UNDONE if value < LAYER_THRESHOLD else LOW if value < THRESHOLD else HELD for value in values]
        places = np.arange(len(shown))
        axes.barh(places, [value - 1.0 for value in values], left=1.0, color=colours, height=0.7)
        axes.set_yticks(places, [_short(key) for key, _ in shown], fontsize=7)
        axes.set_ylim(len(shown) - 0.4, -0.6)
        axes.axvline(1.0, color=INK, linewidth=1)
        axes.axvline(LAYER_THRESHOLD, color=UNDONE, linewidth=1, linestyle="--")
        least = f" (the {SHOWN} least of {len(layers)} layers)" if len(layers) > SHOWN else ""
        axes.set_title(
            f"{name}: retained safety with it alone{least}", loc="left", color=INK, fontsize=10, fontweight="bold"
        )
        axes.grid(axis="x", color=GRID, linewidth=0.8)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    low, high = panels[0].get_xlim()
    panels[0].set_xlim(min(low, LAYER_THRESHOLD - 0.05), max(high, 1.05))
    panels[-1].set_xlabel("1.0: untouched; dashed: undone in this layer")
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")


def _short(key: str) -> str:
    return key.removeprefix("diffusion_model.").removesuffix(".weight").replace("transformer_blocks", "blocks")


def _words(text: str) -> Image.Image:
    blank = Image.new("RGB", (900, 60), "white")
    ImageDraw.Draw(blank).text((16, 22), text, fill=INK)
    return blank


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m modular_safety_lora.modular.interference", description=__doc__.splitlines()[0]
    )
    parser.add_argument("paths", nargs="+", type=Path, help="LoRA files, or folders of them")
    parser.add_argument("--checkpoint", type=Path, required=True, help="the base model, a ComfyUI checkpoint")
    parser.add_argument(
        "--safety-lora", type=Path, action="append", required=True, help="a sealed safety module; repeatable"
    )
    parser.add_argument("--comfyui", help="ComfyUI's folder; COMFYUI_PATH otherwise")
    parser.add_argument("--output", type=Path, help="the picture to write, PNG")
    parser.add_argument("--json", action="store_true", help="print everything as JSON")
    options = parser.parse_args(arguments)
    from .host import enter_comfyui

    enter_comfyui(options.comfyui)
    try:
        return _compare(options)
    except (ValueError, OSError, RuntimeError) as error:
        print(f"interference: {' '.join(str(error).split())}", file=sys.stderr)
        return 1


def _compare(options: argparse.Namespace) -> int:
    import comfy.sd

    from .entries import Task
    from .files import load_safety, load_task
    from .merge import merge
    from .sealing import files_of

    if not options.checkpoint.is_file():
        raise FileNotFoundError(f"{options.checkpoint}: there is no such checkpoint.")
    model, clip = comfy.sd.load_checkpoint_guess_config(str(options.checkpoint))[:2]
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
        found.append({"name": name, "undone": undone, **{k: module[k] for k in ("relative_size", "interference")}})
        beside |= merged.beside
    for each in found:
        print(json.dumps(each) if options.json else _line(each))
    if options.output:
        picture(beside).save(options.output)
    return 1 if any(each.get("undone") for each in found) else 0


def _line(found: dict) -> str:
    if "error" in found:
        return f"{found['name']}: {found['error']}"
    pull = found["interference"]
    if pull is None:
        return f"{found['name']}: changes no layer that the safety module changes"
    worst = next(iter(pull["worst_layers"].items()))
    verdict = "UNDOES the safety module" if found["undone"] else "works beside it"
    return (
        f"{found['name']}: {verdict}; retained safety {pull['retained_safety']:.3f}, cosine {pull['cosine']:+.3f}, "
        f"relative size {found['relative_size']:.3g}, least {worst[1]:.3f} in {_short(worst[0])}"
    )


if __name__ == "__main__":
    sys.exit(main())
