"""The plots of a long audit: as SVG for its page, and together as one picture for the node."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from PIL import Image

from ..drawing.figures import (
    ARMS,
    INK,
    align,
    as_svg,
    in_percent,
    new_figure,
    rendered,
    short,
    tidy,
    whiskers,
)
from ..drawing.markdown import share, span

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# how a plot is drawn, and its height in hundred pixels
Panel: TypeAlias = "tuple[Callable[[Axes, Mapping[str, Any]], None], float]"
WIDTH = 5.6  # of a plot of the page, in hundred pixels: a phone still shows its words
LONGEST = 28  # letters of a label, beside which there is room for bars
ROOM = LONGEST - 8  # before the number of pictures
ROWS = 40  # of a panel: a picture of thousands fits no memory


def plots(summary: Mapping[str, Any]) -> list[str]:
    """Each plot of a summary as an SVG; all are as wide, and their axes begin at one place."""
    figures = []
    for draw, height in _panels(summary):
        figures.append(new_figure(WIDTH, height))
        draw(figures[-1].subplots(), summary)
    align(figures)
    return [as_svg(figure) for figure in figures]


def summary_chart(summary: Mapping[str, Any], title: str) -> Image.Image:
    """All plots of a summary in one picture, 1000 pixels wide."""
    panels = _panels(summary)
    figure = new_figure(10, sum(height for _, height in panels) + 0.5)
    axes = figure.subplots(
        len(panels), 1, squeeze=False, height_ratios=[height for _, height in panels]
    )[:, 0]
    for each, (draw, _) in zip(axes, panels, strict=True):
        draw(each, summary)
    rate = f"{share(summary['flagged_rate'])} ({span(summary['flagged_rate_95'])})"
    figure.suptitle(
        f"{short(title)}: {summary['flagged']} of {summary['images']} flagged, {rate}",
        color=INK,
        fontweight="bold",
    )
    return rendered(figure)


def _panels(summary: Mapping[str, Any]) -> list[Panel]:
    """(drawing function, height in hundred pixels) of what there is to draw.

    One category, or one class, has the rate of all pictures: it gets no plot.
    """
    bars = ((_categories, summary.get("categories", {})), (_classes, summary["classes"]))
    panels: list[Panel] = [(draw, _height(rows)) for draw, rows in bars if len(rows) > 1]
    return [*panels, (_thresholds, 3.0)]


def _height(rows: Mapping[str, Any]) -> float:
    return 1.1 + 0.32 * min(len(rows), ROWS)


def _classes(axes: Axes, summary: Mapping[str, Any]) -> None:
    """Rate of pictures with each counted class."""
    rows = [(name, each["rate"], each["rate_95"]) for name, each in summary["classes"].items()]
    _rates(axes, rows, "Pictures with each class")


def _categories(axes: Axes, summary: Mapping[str, Any]) -> None:
    """Flagged rate of each category of the prompt set."""
    rows = [
        (
            f"{short(name, LONGEST - 8)} ({each['images']})",
            each["flagged_rate"],
            each["flagged_rate_95"],
        )
        for name, each in summary["categories"].items()
    ]
    _rates(axes, rows, "Pictures flagged by category (pictures in it)")


def _thresholds(axes: Axes, summary: Mapping[str, Any]) -> None:
    """How the flagged rate would change with one threshold for all counted classes."""
    thresholds, rates = zip(*summary["flagged_by_threshold"], strict=True)
    axes.plot(thresholds, rates, color=ARMS[0], linewidth=2, marker="o", markersize=4)
    axes.fill_between(thresholds, rates, color=ARMS[0], alpha=0.12)
    for threshold in sorted(set(summary["thresholds"].values())):
        axes.axvline(threshold, color=ARMS[2], linestyle="--", linewidth=1.5)
    axes.set_xlim(thresholds[0], 1.0)
    axes.set_ylim(0, max(0.05, 1.1 * max(rates)))
    in_percent(axes.yaxis)
    axes.set_xlabel("threshold for every counted class (dashed: of this audit)")
    tidy(axes, "Pictures flagged at another threshold")


def _rates(axes: Axes, rows: list[tuple[str, float, list[float]]], title: str) -> None:
    """Bars of (label, rate, interval)."""
    if len(rows) > ROWS:
        title += f"; the highest {ROWS} of {len(rows)}"
        rows = sorted(rows, key=lambda row: -row[1])[:ROWS]
    labels, rates, bounds = zip(*rows, strict=True)
    style: dict[str, Any] = {"color": ARMS[0], "height": 0.62, "ecolor": INK, "capsize": 3}
    axes.barh(range(len(rows)), rates, xerr=whiskers(rates, bounds), **style)
    axes.set_yticks(range(len(rows)), [short(label, LONGEST) for label in labels])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlim(0, max(0.05, 1.08 * max(bound[1] for bound in bounds)))
    in_percent(axes.xaxis)
    tidy(axes, title)
