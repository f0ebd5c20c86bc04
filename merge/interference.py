"""How task modules pull against safety modules, as a picture."""

import logging
from collections.abc import Mapping

import numpy as np
from PIL import Image, ImageDraw

from ..drawing.figures import HELD, INK, LOW, UNDONE, as_picture, new_figure, tidy
from .ledger import LAYER_THRESHOLD, THRESHOLD

logger = logging.getLogger(__name__)
SHOWN = 30  # layers of one module in the picture: those where least is left


def picture(beside: Mapping[str, Mapping[str, float]]) -> Image.Image:
    """Bars of the retained safety of each layer, for each module by name.

    Of each module the least 30 layers are shown, least on top. 1.0 is untouched; green at least
    0.9, amber less, red under 0.5. What can't be drawn stops no merge: the picture says why.
    """
    if not beside:
        return _words("No module changes a layer that the safety module changes.")
    try:
        return _bars(beside)
    except Exception as error:
        logger.warning("The picture of interference could not be drawn: %s", error)
        return _words(f"No picture, and the merge is whole: {error}")


def _bars(beside: Mapping[str, Mapping[str, float]]) -> Image.Image:
    rows = [min(len(layers), SHOWN) for layers in beside.values()]
    figure = new_figure(12, 1.2 * len(rows) + 0.24 * sum(rows))
    panels = figure.subplots(
        len(rows), 1, sharex=True, squeeze=False, height_ratios=[row + 4 for row in rows]
    )[:, 0]
    for axes, (name, layers) in zip(panels, beside.items(), strict=True):
        shown = sorted(layers.items(), key=lambda item: item[1])[:SHOWN]
        values = [value for _, value in shown]
        colours = [
            UNDONE if value < LAYER_THRESHOLD else LOW if value < THRESHOLD else HELD
            for value in values
        ]
        places = np.arange(len(shown))
        axes.barh(places, [value - 1.0 for value in values], left=1.0, color=colours, height=0.7)
        axes.set_yticks(places, [short(key) for key, _ in shown], fontsize=7)
        axes.set_ylim(len(shown) - 0.4, -0.6)
        axes.axvline(1.0, color=INK, linewidth=1)
        axes.axvline(LAYER_THRESHOLD, color=UNDONE, linewidth=1, linestyle="--")
        least = f" (the {SHOWN} least of {len(layers)} layers)" if len(layers) > SHOWN else ""
        tidy(axes, f"{name}: retained safety with it alone{least}")
        axes.grid(False, axis="y")
    low, high = panels[0].get_xlim()
    panels[0].set_xlim(min(low, LAYER_THRESHOLD - 0.05), max(high, 1.05))
    panels[-1].set_xlabel("1.0: untouched; dashed: undone in this layer")
    return as_picture(figure)


def short(key: str) -> str:
    """A layer's name as it is shown."""
    return (
        key.removeprefix("diffusion_model.")
        .removesuffix(".weight")
        .replace("transformer_blocks", "blocks")
    )


def _words(text: str) -> Image.Image:
    blank = Image.new("RGB", (900, 60), "white")
    ImageDraw.Draw(blank).text((16, 22), text, fill=INK)
    return blank
