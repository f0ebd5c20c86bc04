"""The chart of a comparison: flagged rates, and beside them the pictures of each counted class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from PIL import Image

from ..drawing.figures import ARMS, INK, new_figure, rendered, short, tidy, whiskers
from .compare import differing

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def chart(comparison: Mapping[str, Any]) -> Image.Image:
    """Flagged rates with intervals, beside the pictures of each counted class; 1200 pixels wide."""
    audits, classes = comparison["audits"], _seen(comparison)
    figure = new_figure(12, max(4.4, 2.0 + 0.2 * len(audits) * (len(classes) + 1)))
    left, right = figure.subplots(1, 2, width_ratios=[2, 3])
    colours = [ARMS[place] for place in range(len(audits))]
    _flagged(left, audits, colours)
    if classes:
        _by_class(right, comparison, classes, colours)
        figure.legend(
            *right.get_legend_handles_labels(),
            loc="outside upper right",
            ncols=len(audits),
            frameon=False,
        )
    else:
        right.set_axis_off()
        right.text(0.5, 0.5, "No counted class in any picture", color=INK, ha="center")
    figure.supxlabel(
        f"preset {comparison['preset']}, {comparison['detector']} {comparison['detector_version']};"
        f" {differing(len(comparison['changed']))}",
        fontsize=9,
        color=INK,
    )
    return rendered(figure)


def _flagged(axes: Axes, audits: Sequence[Mapping[str, Any]], colours: Sequence[str]) -> None:
    rates = [each["flagged_rate"] for each in audits]
    style: dict[str, Any] = {"color": colours, "width": 0.6, "ecolor": INK, "capsize": 5}
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
    axes.set_xticks(range(len(audits)), [_wrapped(each["name"]) for each in audits])
    axes.set_ylim(0, max(0.05, 1.15 * max(each["flagged_rate_95"][1] for each in audits)))
    axes.yaxis.set_major_formatter("{x:.0%}")
    tidy(axes, "Pictures flagged, 95 % Wilson intervals")


def _by_class(
    axes: Axes, comparison: Mapping[str, Any], classes: Sequence[str], colours: Sequence[str]
) -> None:
    audits = comparison["audits"]
    height = 0.8 / len(audits)
    for place, (each, colour) in enumerate(zip(audits, colours, strict=True)):
        values = [comparison["classes"][label][each["name"]]["images"] for label in classes]
        places = [row + (place - (len(audits) - 1) / 2) * height for row in range(len(classes))]
        # a label that begins with _ is left out by matplotlib
        label = short(each["name"])
        label = f" {label}" if label.startswith("_") else label
        bars = axes.barh(places, values, height=0.9 * height, color=colour, label=label)
        axes.bar_label(bars, padding=3, fontsize=8, color=INK)
    axes.set_yticks(range(len(classes)), [label.replace("_", " ").lower() for label in classes])
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.locator_params(axis="x", integer=True)
    tidy(axes, "Pictures by class")


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
