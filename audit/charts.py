"""The plots of a long audit: as SVG for its page, and together as one picture for the node."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from PIL import Image

from ..drawing.figures import ARMS, INK, as_svg, new_figure, rendered, short, tidy, whiskers

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# how a plot is drawn, and its height in hundred pixels
Panel: TypeAlias = "tuple[Callable[[Axes, Mapping[str, Any]], None], float]"
ROWS = 40  # of a panel: a picture of thousands fits no memory


def plots(summary: Mapping[str, Any]) -> list[str]:
    """Each plot of a summary as an SVG."""
    found = []
    for draw, height in _panels(summary):
        figure = new_figure(8, height)
        draw(figure.subplots(), summary)
        found.append(as_svg(figure))
    return found


def summary_chart(summary: Mapping[str, Any], title: str) -> Image.Image:
    """All plots of a summary in one picture, 1000 pixels wide."""
    panels = _panels(summary)
    figure = new_figure(10, sum(height for _, height in panels) + 0.5)
    axes = figure.subplots(
        len(panels), 1, squeeze=False, height_ratios=[height for _, height in panels]
    )[:, 0]
    for each, (draw, _) in zip(axes, panels, strict=True):
        draw(each, summary)
    low, high = summary["flagged_rate_95"]
    rate = f"{summary['flagged_rate']:.1%} ({low:.1%} to {high:.1%})"
    figure.suptitle(
        f"{short(title)}: {summary['flagged']} of {summary['images']} flagged, {rate}",
        color=INK,
        fontweight="bold",
    )
    return rendered(figure)


def _panels(summary: Mapping[str, Any]) -> list[Panel]:
    """(drawing function, height in hundred pixels) of what there is to draw."""
    panels: list[Panel] = []
    if summary.get("categories"):
        panels.append((_categories, _height(summary["categories"])))
    return [*panels, (_classes, _height(summary["classes"])), (_thresholds, 3.2)]


def _height(rows: Mapping[str, Any]) -> float:
    return 1.1 + 0.32 * min(len(rows), ROWS)


def _classes(axes: Axes, summary: Mapping[str, Any]) -> None:
    """Rate of pictures with each counted class."""
    rows = [
        (name.replace("_", " ").lower(), each["rate"], each["rate_95"])
        for name, each in summary["classes"].items()
    ]
    _rates(axes, rows, "Pictures with each class, 95 % Wilson intervals")


def _categories(axes: Axes, summary: Mapping[str, Any]) -> None:
    """Flagged rate of each category of the prompt set."""
    rows = [
        (f"{short(name)} ({each['images']})", each["flagged_rate"], each["flagged_rate_95"])
        for name, each in summary["categories"].items()
    ]
    _rates(axes, rows, "Pictures flagged by category (number of pictures), 95 % Wilson intervals")


def _thresholds(axes: Axes, summary: Mapping[str, Any]) -> None:
    """How the flagged rate would change with one threshold for all counted classes."""
    thresholds, rates = zip(*summary["flagged_by_threshold"], strict=True)
    axes.plot(thresholds, rates, color=ARMS[0], linewidth=2, marker="o", markersize=4)
    axes.fill_between(thresholds, rates, color=ARMS[0], alpha=0.12)
    for place, threshold in enumerate(sorted(set(summary["thresholds"].values()))):
        label = "thresholds of this audit" if place == 0 else None
        axes.axvline(threshold, color=ARMS[2], linestyle="--", linewidth=1.5, label=label)
    axes.set_xlim(thresholds[0], 1.0)
    axes.set_ylim(0, max(0.05, 1.1 * max(rates)))
    axes.yaxis.set_major_formatter("{x:.0%}")
    axes.set_xlabel("threshold for every counted class")
    axes.legend(frameon=False, loc="upper right")
    tidy(axes, "Pictures that would be flagged at another threshold")


def _rates(axes: Axes, rows: list[tuple[str, float, list[float]]], title: str) -> None:
    """Bars of (label, rate, interval)."""
    if len(rows) > ROWS:
        title += f"; the highest {ROWS} of {len(rows)}"
        rows = sorted(rows, key=lambda row: -row[1])[:ROWS]
    labels, rates, bounds = zip(*rows, strict=True)
    style: dict[str, Any] = {"color": ARMS[0], "height": 0.62, "ecolor": INK, "capsize": 3}
    axes.barh(range(len(rows)), rates, xerr=whiskers(rates, bounds), **style)
    axes.set_yticks(range(len(rows)), map(short, labels))
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlim(0, max(0.05, 1.08 * max(bound[1] for bound in bounds)))
    axes.xaxis.set_major_formatter("{x:.0%}")
    tidy(axes, title)
