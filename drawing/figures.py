"""Matplotlib without its global state, in the colours of the pack's charts."""

from __future__ import annotations

import io
from collections.abc import Sequence
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:  # a ComfyUI without it merges and audits
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

INK, GRID, BARS = "#1f2933", "#d9dee4", "#c2410c"
LINES = ("#2563eb", "#7c3aed", "#0d9488")
HELD, LOW, UNDONE = "#0d9488", "#d97706", "#c2410c"  # a verdict in three colours
ARMS = ("#2563eb", "#0d9488", "#c2410c", "#7c3aed", "#64748b", "#b45309")


def library() -> ModuleType:
    """The module `matplotlib.figure`, imported at the first chart: the import loads fonts.

    Raises ValueError where it is not installed; merges and audits work without it.
    """
    try:
        import matplotlib.figure
    except ImportError as error:
        raise ValueError(
            f"The charts are drawn with matplotlib, which can't be imported ({error}). Run the"
            " pack's install.py."
        ) from error
    return matplotlib.figure


def new_figure(width: float, height: float) -> Figure:
    """An empty white figure of `width` x `height` hundred pixels."""
    return library().Figure(
        figsize=(width, height), dpi=100, facecolor="white", layout="constrained"
    )


def tidy(axes: Axes, title: str = "") -> None:
    axes.set_title(title, loc="left", color=INK, fontsize=11, fontweight="bold")
    axes.grid(color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def short(text: str, most: int = 48) -> str:
    """A label of one line that can be drawn, and leaves room for what it labels."""
    text = " ".join(text.encode("utf-8", "replace").decode().split())
    return text if len(text) <= most else f"{text[: most - 1]}…"


def in_percent(axis: Axis) -> None:
    """Ticks of shares of 1, written as reports write them."""
    axis.set_major_formatter(lambda share, _: f"{100 * share:g} %")


def align(figures: Sequence[Figure]) -> None:
    """Give figures of one width, with one axes each, the left and right edges that fit all."""
    for figure in figures:
        _literal(figure)
        figure.draw_without_rendering()
        figure.set_layout_engine("none")
    boxes = [figure.axes[0].get_position() for figure in figures]
    left, right = max(box.x0 for box in boxes), min(box.x1 for box in boxes)
    for figure, box in zip(figures, boxes, strict=True):
        figure.axes[0].set_position((left, box.y0, right - left, box.height))


def whiskers(rates: Sequence[float], intervals: Sequence[Sequence[float]]) -> list[list[float]]:
    """Error bars of rates from their intervals, as matplotlib wants them."""
    low = [max(0.0, rate - interval[0]) for rate, interval in zip(rates, intervals, strict=True)]
    high = [max(0.0, interval[1] - rate) for rate, interval in zip(rates, intervals, strict=True)]
    return [low, high]


def _literal(figure: Figure) -> None:
    """Every text as it is: `$` in a name is no formula, and no name ends a run."""
    from matplotlib.text import Text

    for text in figure.findobj(Text):
        text.set_parse_math(False)
        text.set_text(text.get_text().encode("utf-8", "replace").decode())


def rendered(figure: Figure) -> Image.Image:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    _literal(figure)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")


def as_svg(figure: Figure) -> str:
    """The figure as an SVG element to stand in an HTML page; the same figure is the same text."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    _literal(figure)
    buffer = io.StringIO()
    with rc_context({"svg.hashsalt": "of its parts' names"}):  # which are random without one
        FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]
