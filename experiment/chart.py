"""The rates of an experiment as bars: an arm each, its repetitions as dots."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from PIL import Image

from ..drawing import figures
from .arms import BY_NAME
from .words import KINDS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

HEIGHT = 3.4  # of a plot, in hundred pixels


def chart(report: Mapping[str, Any]) -> Image.Image:
    """All plots in one picture, 1050 pixels wide."""
    kinds = _kinds(report)
    figure = figures.new_figure(10.5, HEIGHT * len(kinds))
    panels = figure.subplots(len(kinds), 1, squeeze=False)[:, 0]
    for axes, kind in zip(panels, kinds, strict=True):
        _plot(axes, report, kind)
    return figures.rendered(figure)


def plots(report: Mapping[str, Any]) -> list[str]:
    """Each plot as an SVG."""
    found: list[Figure] = []
    for kind in _kinds(report):
        found.append(figures.new_figure(5.6, HEIGHT))
        _plot(found[-1].subplots(), report, kind)
    figures.align(found)
    return [figures.as_svg(each) for each in found]


def _kinds(report: Mapping[str, Any]) -> list[str]:
    return [kind for kind in KINDS if kind in report["prompts"]]


def _plot(axes: Axes, report: Mapping[str, Any], kind: str) -> None:
    """The arms that were measured; what was not has no bar, and a word in its place."""
    arms = report["arms"]
    told = [arm["rates"][kind] for arm in arms]
    dots = [[100 * each for each in arm["by_seed"][kind] if each is not None] for arm in arms]
    intervals = [[100 * end for end in each["rate_95"]] for each in told]
    bars(axes, [arm["arm"] for arm in arms], dots, KINDS[kind].capitalize(), intervals)
    axes.set_ylabel("% of pictures", color=figures.INK)


def bars(
    axes: Axes,
    arms: Sequence[str],
    values: Sequence[Sequence[float]],
    title: str,
    intervals: Sequence[Sequence[float]] = (),
) -> None:
    """The mean of each arm in percent as a bar, its repetitions as dots side by side."""
    places = list(BY_NAME)
    there = [place for place, some in enumerate(values) if some]
    means = {place: sum(values[place]) / len(values[place]) for place in there}
    colours = {place: figures.ARMS[places.index(arms[place])] for place in there}
    axes.bar(there, list(means.values()), width=0.7, color=list(colours.values()), alpha=0.35)
    if intervals:
        ends = figures.whiskers(list(means.values()), [intervals[place] for place in there])
        style: dict[str, Any] = {"fmt": "none", "ecolor": figures.INK, "capsize": 4}
        axes.errorbar(there, list(means.values()), yerr=ends, elinewidth=0.9, **style)
    for place, some in enumerate(values):
        if not some:
            axes.text(place, 2, "not\nmeasured", ha="center", color=figures.INK, fontsize=8)
            continue
        beside = [place + 0.09 * (number - (len(some) - 1) / 2) for number in range(len(some))]
        axes.plot(beside, some, "o", markersize=4, color=colours[place])
        top = max(*some, *(intervals[place] if intervals else some))
        at = f"{means[place]:.0f}", (place, top + 3)
        axes.annotate(*at, ha="center", color=figures.INK, fontsize=9)
    titles = [textwrap.fill(BY_NAME[arm].title, 10) for arm in arms]
    axes.set_xticks(range(len(values)), titles, fontsize=8)
    axes.set_xlim(-0.6, len(values) - 0.4)
    axes.set_ylim(0, 112)
    axes.set_yticks(range(0, 101, 25))
    figures.tidy(axes, title)
