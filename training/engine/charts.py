"""The picture of a run: loss over steps, and beside it how often the audit flagged the previews."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from ...drawing.figures import BARS, LINES, in_percent, new_figure, rendered, short, tidy, whiskers
from ...options.words import amount

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SMOOTHING = 0.05  # share of the run that the smoothed line averages over


def loss_plot(
    losses: Sequence[dict[str, float]],
    previews: Sequence[dict[str, Any]] = (),
    title: str = "",
    first: int = 1,
) -> Image.Image:
    """A chart of 1200 x 600 pixels, 1200 x 900 with previews.

    Every part of the loss, raw and smoothed, over the steps from `first` on. Below it the share of
    preview pictures that the audit flagged, with 95 % Wilson intervals.
    """
    rows = [3, 2] if previews else [1]
    figure = new_figure(12, 9 if previews else 6)
    axes = figure.subplots(len(rows), 1, sharex=True, squeeze=False, height_ratios=rows)[:, 0]
    names = list(dict.fromkeys(name for step in losses for name in step))
    for name, colour in zip(names, LINES, strict=False):
        steps = np.array([number for number, step in enumerate(losses, first) if name in step])
        values = np.array([step[name] for step in losses if name in step])
        axes[0].plot(
            steps,
            values,
            color=colour,
            alpha=0.25,
            linewidth=1,
            marker="." if len(steps) == 1 else None,
        )
        axes[0].plot(
            steps, _smooth(values), color=colour, linewidth=2, label=f"{name} ({values[-1]:.4g})"
        )
    axes[0].set_ylabel("loss")
    _legend(axes[0])
    if previews:
        _draw_audit(axes[1], previews)
    tidy(axes[0], title)
    axes[-1].set_xlabel("step")
    axes[-1].set_xlim(left=0)
    axes[-1].xaxis.get_major_locator().set_params(integer=True)
    return rendered(figure)


def _draw_audit(axes: Axes, previews: Sequence[dict[str, Any]]) -> None:
    made = [each for each in previews if each["images"]]
    rates = [each["flagged"] / each["images"] for each in made]
    bars = whiskers(rates, [each["flagged_rate_95"] for each in made])
    steps = [each["step"] for each in made]
    style: dict[str, Any] = {
        "color": BARS,
        "marker": "o",
        "capsize": 4,
        "linewidth": 2,
        "clip_on": False,
    }
    axes.errorbar(steps, rates, yerr=bars, label="previews flagged", **style)
    weak = [(each["step"], each["flagged"] / each["images"]) for each in made if "too_weak" in each]
    if weak:
        axes.plot(
            *zip(*weak, strict=True),
            color=BARS,
            marker="o",
            linestyle="none",
            markerfacecolor="white",
            clip_on=False,
            zorder=3,
            label="too weak to merge yet",
        )
    lost = [each for each in previews if not each["images"]]
    if lost:
        said = f"no previews of {amount(len(lost), 'step')}: {lost[0].get('error', '')}"
        axes.text(0.01, 0.98, short(said, 130), transform=axes.transAxes, va="top", fontsize=9)
    held = [
        (each["step"], each["retained_safety"])
        for each in previews
        if each.get("retained_safety") is not None
    ]
    if held:
        label = f"retained safety ({held[-1][1]:.3f})"
        axes.plot(
            *zip(*held, strict=True), color=LINES[2], linestyle="--", linewidth=1.5, label=label
        )
    axes.set_ylim(0, 1.19 if lost else 1.1)
    in_percent(axes.yaxis)
    axes.set_ylabel("previews flagged")
    counts = sorted({each["images"] for each in made})
    tidy(
        axes,
        f"Audit of the previews ({', '.join(map(str, counts))} per step, 95 % Wilson intervals)",
    )
    _legend(axes)


def _legend(axes: Axes) -> None:
    axes.legend(
        frameon=False, loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=3, borderaxespad=0.2
    )


def _smooth(values: np.ndarray) -> np.ndarray:
    """A centred moving mean over a share of the run, narrower at its ends."""
    half = int(len(values) * SMOOTHING / 2)
    sums = np.concatenate([[0.0], np.cumsum(values)])
    at = np.arange(len(values))
    start, end = np.maximum(at - half, 0), np.minimum(at + half + 1, len(values))
    return (sums[end] - sums[start]) / (end - start)
