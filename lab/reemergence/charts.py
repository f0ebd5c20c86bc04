"""The benchmark's charts, in the house's style.

Recovery per arm, over steps, against task loss, and sampled pictures.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ...audit.stats import wilson
from ...drawing.figures import ARMS as COLOURS
from ...drawing.figures import BARS, GRID, INK, LINES, new_figure, rendered, tidy
from . import arms

TITLES = {"esd-x": "ESD-x", "sdd": "SDD", "sdd-retained": "SDD with retention"}
NAMES = {
    "base": "base, no safety module",
    "safe": "safe: safety module alone",
    "task_only": "task alone, no safety module",
    "sequential": "sequential LoRA",
    "sequential_full": "sequential, all weights",
    "sequential_projected": "sequential, projected",
    "modular": "modular (detached)",
    "anchored_lambda1": "anchored, lambda 1",
    "anchored": "anchored, lambda 3",
    "anchored_lambda1_projected": "anchored, lambda 1, projected",
    "anchored_projected": "anchored, lambda 3, projected",
    "hostile": "hostile, trained apart",
    "hostile_sequential": "hostile, sequential",
}
SHOWN = (
    "base",
    "task_only",
    "safe",
    "sequential",
    "sequential_full",
    "modular",
    "anchored",
    "hostile_sequential",
)
DYED = {"sequential": BARS, "modular": LINES[0], "anchored": LINES[2]}
OVER_TIME = tuple(DYED)
SHOWN_RECOVERY = (-0.75, 1.5)
MARKERS = {
    "sequential_full": "s",
    "sequential_projected": "^",
    "anchored_lambda1": "D",
    "anchored_projected": "^",
    "anchored_lambda1_projected": "v",
}
TASKS = [arm for arm in NAMES if arm not in ("base", "safe", "task_only")]


def of(results: Mapping) -> dict[str, Image.Image]:
    """The charts by file name."""
    return {"recovery": recovery(results), "over-steps": over_steps(results), "cost": cost(results)}


def recovery(results: Mapping) -> Image.Image:
    """Recovery of each arm: every seed a dot, the mean a bar.

    0 is as safe as before, 1 as without a safety module.
    """
    figure, methods = new_figure(12, 5.6), _methods(results)
    for axes, method in zip(_side_by_side(figure, methods), methods, strict=True):
        axes.axvline(0, color=INK, linewidth=1)
        axes.axvline(1, color=INK, linewidth=1, linestyle=":")
        for place, arm in enumerate(reversed(TASKS)):
            runs, colour = _runs(results, method, arm), _colour(arm)
            axes.barh(
                place,
                np.mean([run["recovery"] for run in runs]),
                height=0.62,
                color=colour,
                alpha=0.35,
            )
            for name, shift, face in (
                ("recovery", 0.12, colour),
                ("recovery_unseen", -0.16, "white"),
            ):
                values = np.clip([run[name] for run in runs], *SHOWN_RECOVERY)
                axes.scatter(
                    values,
                    [place + shift] * len(values),
                    s=26,
                    color=face,
                    edgecolors=colour,
                    zorder=3,
                )
        axes.set_yticks(range(len(TASKS)), [NAMES[arm] for arm in reversed(TASKS)], color=INK)
        axes.set_xlabel("recovery")
        tidy(axes, TITLES[method])
        axes.grid(axis="y", visible=False)
    marks = [
        figure.axes[0].scatter([], [], s=26, color=face, edgecolors=INK) for face in (INK, "white")
    ]
    labels = [
        "one seed, prompts of the safety module",
        "one seed, prompts that neither it nor the anchor saw (at the border: beyond it)",
    ]
    figure.legend(marks, labels, loc="outside lower center", ncols=2, frameon=False)
    return rendered(figure)


def over_steps(results: Mapping) -> Image.Image:
    """Recovery and the audited rate while the task is trained.

    Recovery is the mean, and the range over seeds; the rate has its 95 % Wilson interval.
    """
    figure, methods = new_figure(12, 7), _methods(results)
    grid = figure.subplots(2, len(methods), sharex=True, sharey="row", squeeze=False)
    for column, method in enumerate(methods):
        for arm in OVER_TIME:
            points = _over_time(results, method, arm)
            steps, colour = [step for step, _ in points], DYED[arm]
            values = np.array([[run["recovery"] for run in runs] for _, runs in points])
            grid[0, column].plot(
                steps, values.mean(axis=1), color=colour, marker="o", linewidth=2, label=NAMES[arm]
            )
            grid[0, column].fill_between(
                steps, values.min(axis=1), values.max(axis=1), color=colour, alpha=0.15, linewidth=0
            )
            pooled = [_pooled(runs) for _, runs in points]
            grid[1, column].plot(
                steps,
                [rate for rate, _ in pooled],
                color=colour,
                marker="o",
                linewidth=2,
                label=NAMES[arm],
            )
            low, high = zip(*(interval for _, interval in pooled), strict=True)
            grid[1, column].fill_between(steps, low, high, color=colour, alpha=0.15, linewidth=0)
        alone = _pooled(_runs(results, method, "task_only"))[0]
        grid[1, column].axhline(
            alone, color=INK, linestyle=":", linewidth=1.5, label=NAMES["task_only"]
        )
        tidy(grid[0, column], TITLES[method])
        tidy(grid[1, column])
        grid[1, column].yaxis.set_major_formatter("{x:.0%}")
        grid[1, column].set_xlabel("fine-tuning steps")
        grid[1, column].set_ylim(bottom=0)
    grid[0, 0].set_ylabel("recovery")
    grid[1, 0].set_ylabel("pictures that the audit flags")
    handles, labels = grid[1, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)
    return rendered(figure)


def cost(results: Mapping) -> Image.Image:
    """Safety against task loss: one point per arm, with the standard deviation over seeds."""
    figure, methods = new_figure(12, 5.6), _methods(results)
    for axes, method in zip(_side_by_side(figure, methods), methods, strict=True):
        axes.axhspan(-0.1, 0.1, color=GRID, alpha=0.5, linewidth=0)
        for arm in (arm for arm in TASKS if arm not in arms.HOSTILE):
            runs = _runs(results, method, arm)
            x, y = ([run[name] for run in runs] for name in ("task_loss_ratio", "recovery"))
            style = {
                "color": _colour(arm),
                "marker": MARKERS.get(arm, "o"),
                "markersize": 7,
                "linewidth": 1,
                "capsize": 2,
            }
            axes.errorbar(
                np.mean(x), np.mean(y), xerr=_sd(x), yerr=_sd(y), label=NAMES[arm], **style
            )
        axes.set_xlabel("task loss, as a multiple of the task alone's")
        tidy(axes, TITLES[method])
    figure.axes[0].set_ylabel("recovery (the band: at most 0.1)")
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)
    return rendered(figure)


def samples(strips: Sequence[tuple[str, Path]], scale: int = 4) -> Image.Image:
    """Strips of sampled pictures under each other, with their arm beside them."""
    font = ImageFont.load_default(15)
    made = [(label, _grown(Image.open(file), scale)) for label, file in strips]
    width, height = made[0][1].size
    left = 250
    sheet = Image.new("RGB", (left + width + 10, (height + 8) * len(made) + 8), "white")
    draw = ImageDraw.Draw(sheet)
    for row, (label, strip) in enumerate(made):
        top = 8 + row * (height + 8)
        draw.text((10, top + height // 2), label, fill=INK, font=font, anchor="lm")
        sheet.paste(strip, (left, top))
    return sheet


def _grown(strip: Image.Image, scale: int) -> Image.Image:
    return strip.resize((strip.width * scale, strip.height * scale), Image.Resampling.NEAREST)


def _side_by_side(figure, methods: Sequence[str]) -> list:
    """The axes of one row, one for each method, also where there is one alone."""
    return list(figure.subplots(1, len(methods), sharey=True, sharex=True, squeeze=False)[0])


def _methods(results: Mapping) -> list[str]:
    return list(results["recipe"]["safety"])


def _runs(results: Mapping, method: str, arm: str, steps: int | None = None) -> list[Mapping]:
    steps = steps or results["recipe"]["task_steps"]
    return [
        r
        for r in results["runs"]
        if r["arm"] == arm and r["method"] in (method, "any") and r["steps"] == steps
    ]


def _over_time(results: Mapping, method: str, arm: str) -> list[tuple[int, list[Mapping]]]:
    steps = sorted({run["steps"] for run in results["runs"] if run["arm"] == arm})
    return [
        (0, _runs(results, method, "safe")),
        *((step, _runs(results, method, arm, step)) for step in steps),
    ]


def _pooled(runs: Sequence[Mapping]) -> tuple[float, tuple[float, float]]:
    flags = "".join(next(iter(run["rates"].values()))["flags"] for run in runs)
    return flags.count("1") / len(flags), wilson(flags.count("1"), len(flags))


def _sd(values: Sequence[float]) -> float:
    return float(np.std(values, ddof=1)) if len(values) > 1 else 0.0


def _colour(arm: str) -> str:
    for start, colour in (
        ("sequential", COLOURS[2]),
        ("modular", COLOURS[0]),
        ("anchored", COLOURS[1]),
    ):
        if arm.startswith(start):
            return colour
    return COLOURS[3]
