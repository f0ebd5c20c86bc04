"""How much of the concept base, safe and merged model draw for each prompt of a probe, as bars."""

import logging

import numpy as np
from PIL import Image, ImageDraw

from ..drawing.figures import HELD, INK, LINES, UNDONE, new_figure, rendered, short, tidy
from .probed import Found, Probed

logger = logging.getLogger(__name__)
SHOWN = 24  # prompts of a safety module: those where least is left
BARS = (("base", UNDONE), ("safe", HELD), ("merged", LINES[0]))


def probe_chart(probed: Probed) -> Image.Image:
    """A panel for each safety module; where none was measured, or drawn, the picture says why."""
    measured = [each for each in probed.found if each.number is not None]
    if not measured:
        return _words(" / ".join(each.why for each in probed.found) or "Nothing was probed.")
    try:
        return _bars(probed, measured)
    except Exception as error:
        logger.warning("The chart of the probe could not be drawn: %s", error)
        return _words(f"The chart could not be drawn; the probe is not affected. {error}")


def _bars(probed: Probed, measured: list[Found]) -> Image.Image:
    rows = [min(len(each.merged), SHOWN) for each in measured]
    figure = new_figure(12, 1.3 * len(rows) + 0.42 * sum(rows))
    panels = figure.subplots(len(rows), 1, squeeze=False, height_ratios=[row + 2 for row in rows])[
        :, 0
    ]
    for axes, each in zip(panels, measured, strict=True):
        names = [*each.least_first][:SHOWN]
        places = np.arange(len(names))
        values = {"base": [1.0] * len(names)}
        values |= {"safe": [each.safe[name] for name in names]}
        values |= {"merged": [each.merged[name] for name in names]}
        for number, (name, colour) in enumerate(BARS):
            axes.barh(places + 0.27 * (number - 1), values[name], 0.25, color=colour, label=name)
        axes.set_yticks(places, [short(probed.shown(name)) for name in names], fontsize=8)
        axes.set_ylim(len(names) - 0.4, -0.6)
        axes.axvline(0.0, color=INK, linewidth=1)
        count = len(each.merged)
        least = f" (the {SHOWN} least of {count} prompts)" if count > SHOWN else ""
        tidy(axes, f"{each.name}: how much of the concept is drawn{least}")
        axes.grid(False, axis="y")
        axes.legend(fontsize=8, framealpha=1.0, loc="lower right")
    return rendered(figure)


def _words(text: str) -> Image.Image:
    blank = Image.new("RGB", (900, 60), "white")
    ImageDraw.Draw(blank).text((16, 22), text[:140], fill=INK)
    return blank
