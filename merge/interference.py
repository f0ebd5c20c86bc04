"""How task modules pull against safety modules, as a picture."""

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from ..drawing.figures import HELD, INK, LOW, UNDONE, new_figure, rendered, tidy
from ..drawing.figures import short as label
from ..drawing.markdown import share
from ..function.limits import DEFAULT, Limits
from ..function.number import Number
from .ledger import LAYER_THRESHOLD, THRESHOLD

logger = logging.getLogger(__name__)
SHOWN = 30  # bars of a panel: those where least is left


def picture(
    layers: Mapping[str, Mapping[str, float]],
    computed: Mapping[str, Number] | None = None,
    limits: Limits = DEFAULT,
) -> Image.Image:
    """Bars of retained safety: in what the network computes, and by layer for each module.

    `computed` has the number of each safety module, `layers` that of each layer, by module. Of each
    the least 30 are shown, least on top. 1.0 is untouched; green is well, amber less than
    usual, red undone. What can't be drawn stops no merge: the picture says why.
    """
    panels = [_of_function(name, each, limits) for name, each in (computed or {}).items()]
    panels += [
        _Panel(f"{name}: over weights, beside it alone", each, LAYER_THRESHOLD, THRESHOLD, "layers")
        for name, each in layers.items()
    ]
    if not panels:
        return _words("No LoRA changes a layer that the safety LoRA changes.")
    try:
        return _bars(panels)
    except Exception as error:
        logger.warning("The picture of interference could not be drawn: %s", error)
        return _words(f"The picture could not be drawn; the merge is not affected. {error}")


@dataclass(frozen=True)
class _Panel:
    """Values by name: red under `undone`, amber under `low`."""

    title: str
    values: Mapping[str, float]
    undone: float
    low: float
    what: str


def _of_function(name: str, number: Number, limits: Limits) -> _Panel:
    """Each prompt, and all together; what only a style damps is neither amber nor red."""
    values = {"all prompts": number.retained}
    values |= {prompt: rho for prompt, (rho, _) in number.by_prompt.items()}
    back = share(number.back, digits=0)
    title = f"{name}: in what the network computes; {back} of the base is back"
    if limits.stops(number) or limits.asks(number):
        return _Panel(title, values, limits.stop, limits.look, "prompts")
    return _Panel(title, values, -math.inf, -math.inf, "prompts")


def _bars(shown: Sequence[_Panel]) -> Image.Image:
    rows = [min(len(each.values), SHOWN) for each in shown]
    figure = new_figure(12, 1.2 * len(rows) + 0.24 * sum(rows))
    panels = figure.subplots(
        len(rows), 1, sharex=True, squeeze=False, height_ratios=[row + 4 for row in rows]
    )[:, 0]
    for axes, each in zip(panels, shown, strict=True):
        _bar(axes, each)
    low, high = panels[0].get_xlim()
    panels[0].set_xlim(min(low, LAYER_THRESHOLD - 0.05), max(high, 1.05))
    panels[-1].set_xlabel("1.0: untouched; dashed: undone")
    return rendered(figure)


def _bar(axes: Any, panel: _Panel) -> None:
    some = sorted(panel.values.items(), key=lambda item: item[1])[:SHOWN]
    values, places = [value for _, value in some], np.arange(len(some))
    colours = [
        UNDONE if not value >= panel.undone else LOW if value < panel.low else HELD
        for value in values
    ]
    axes.barh(places, [value - 1.0 for value in values], left=1.0, color=colours, height=0.7)
    axes.set_yticks(places, [label(layer_label(key)) for key, _ in some], fontsize=7)
    axes.set_ylim(len(some) - 0.4, -0.6)
    axes.axvline(1.0, color=INK, linewidth=1)
    if math.isfinite(panel.undone):
        axes.axvline(panel.undone, color=UNDONE, linewidth=1, linestyle="--")
    count = len(panel.values)
    least = f" (the {SHOWN} least of {count} {panel.what})" if count > SHOWN else ""
    tidy(axes, f"{panel.title}{least}")
    axes.grid(False, axis="y")


def layer_label(key: str) -> str:
    """A layer's name cut to its last parts, for an axis."""
    return (
        key.removeprefix("diffusion_model.")
        .removesuffix(".weight")
        .replace("transformer_blocks", "blocks")
    )


def _words(text: str) -> Image.Image:
    blank = Image.new("RGB", (900, 60), "white")
    ImageDraw.Draw(blank).text((16, 22), text, fill=INK)
    return blank
