"""The chart of a comparison: flagged rates, and beside them the pictures of each counted class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

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
from .charts import LONGEST, WIDTH
from .compare import differing, looked_at

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def chart(comparison: Mapping[str, Any]) -> Image.Image:
    """Flagged rates with intervals, beside the pictures of each counted class; 1200 pixels wide.

    A single class would repeat the rates: it is not drawn.
    """
    audits, classes = comparison["audits"], _seen(comparison)
    figure = new_figure(12, max(4.4, 2.0 + 0.2 * len(audits) * (len(classes) + 1)))
    if len(classes) == 1:
        _flagged(figure.subplots(), audits, wide=True)
    else:
        left, right = figure.subplots(1, 2, width_ratios=[2, 3.2])
        _flagged(left, audits)
        _by_class(right, comparison, classes)
    figure.supxlabel(
        f"{looked_at(comparison)} {differing(len(comparison['changed'])).capitalize()}.",
        fontsize=9,
        color=INK,
    )
    return rendered(figure)


def plots(comparison: Mapping[str, Any]) -> list[str]:
    """The same as an SVG for each plot; their axes begin at one place."""
    audits, classes = comparison["audits"], _seen(comparison)
    figures = [new_figure(WIDTH, 3.4)]
    _flagged(figures[0].subplots(), audits)
    if len(classes) > 1:
        figures.append(new_figure(WIDTH, 1.4 + 0.2 * len(audits) * len(classes)))
        _by_class(figures[1].subplots(), comparison, classes)
    align(figures)
    return [as_svg(figure) for figure in figures]


def _flagged(axes: Axes, audits: Sequence[Mapping[str, Any]], wide: bool = False) -> None:
    rates = [each["flagged_rate"] for each in audits]
    style: dict[str, Any] = {
        "color": ARMS[: len(audits)],
        "width": 0.4 if wide else 0.6,
        "ecolor": INK,
        "capsize": 5,
    }
    bounds = whiskers(rates, [each["flagged_rate_95"] for each in audits])
    axes.bar(range(len(audits)), rates, yerr=bounds, **style)
    for place, each in enumerate(audits):
        axes.annotate(
            f"{each['flagged']} of {each['images']}",
            (place, each["flagged_rate_95"][1]),
            (0, 4),
            textcoords="offset points",
            ha="center",
            color=INK,
        )
    named = short if wide else _wrapped
    axes.set_xticks(range(len(audits)), [named(each["name"]) for each in audits])
    axes.set_ylim(0, max(0.05, 1.15 * max(each["flagged_rate_95"][1] for each in audits)))
    in_percent(axes.yaxis)
    tidy(axes, "Pictures flagged, 95 % intervals")


def _by_class(axes: Axes, comparison: Mapping[str, Any], classes: Sequence[str]) -> None:
    audits = comparison["audits"]
    if not classes:
        axes.set_axis_off()
        axes.text(0.5, 0.5, "No counted class in any picture", color=INK, ha="center")
        return
    height = 0.8 / len(audits)
    for place, (each, colour) in enumerate(zip(audits, ARMS, strict=False)):
        values = [comparison["classes"][label][each["name"]]["images"] for label in classes]
        places = [row + (place - (len(audits) - 1) / 2) * height for row in range(len(classes))]
        # a label that begins with _ is left out by matplotlib
        label = short(each["name"])
        label = f" {label}" if label.startswith("_") else label
        bars = axes.barh(places, values, height=0.9 * height, color=colour, label=label)
        axes.bar_label(bars, padding=3, fontsize=8, color=INK)
    axes.set_yticks(range(len(classes)), [short(label, LONGEST) for label in classes])
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.locator_params(axis="x", integer=True)
    axes.legend(frameon=False, fontsize=9)
    tidy(axes, "Pictures with each class")


def _seen(comparison: Mapping[str, Any]) -> list[str]:
    """The classes that were counted in at least one picture."""
    classes = comparison["classes"]
    return [
        label
        for label, by_name in classes.items()
        if any(each["images"] for each in by_name.values())
    ]


def _wrapped(name: str) -> str:
    return short(name) if len(name) < 12 else short(name).replace(" ", "\n")
