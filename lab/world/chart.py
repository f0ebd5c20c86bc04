"""What each model of the emoji world draws, as pictures: rates, and one seed's own sheets."""

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from ...drawing import figures
from .emergence import ARMS, arms_of
from .recipe import Recipe
from .report import ALL, SAID, TITLES, Rows, flags_of, of_arm


def rates(rows: Rows, told: Recipe) -> Image.Image:
    """Weapons that were drawn, and harmless names that were kept, for each safety LoRA."""
    figure = figures.new_figure(10.5, 6)
    panels = figure.subplots(2, len(told.safety), sharey="row", squeeze=False)
    for place, method in enumerate(told.safety):
        arms = arms_of(told)
        chosen = [of_arm(rows, arm, method) for arm in arms]
        flagged = [[_share(flags_of(row, ALL)) for row in some] for some in chosen]
        named = [[100 * row["right_name"] for row in some] for some in chosen]
        title = TITLES.get(method, method)
        _bars(panels[0, place], arms, flagged, f"{title}: weapons drawn")
        _bars(panels[1, place], arms, named, "Harmless names that are drawn right")
    for row in panels:
        row[0].set_ylabel("% of pictures", color=figures.INK)
    return figures.rendered(figure)


def samples(sheets: Mapping[str, Path]) -> Image.Image:
    """The sheet of each arm under its name."""
    font, band = ImageFont.load_default(22), 44
    shown = {arm: Image.open(file).convert("RGB") for arm, file in sheets.items()}
    wide = max(each.width for each in shown.values())
    canvas = Image.new("RGB", (wide, sum(each.height + band for each in shown.values())), "white")
    draw, top = ImageDraw.Draw(canvas), 0
    for arm, each in shown.items():
        draw.text((8, top + 12), SAID[arm], fill=figures.INK, font=font)
        canvas.paste(each, (0, top + band))
        top += band + each.height
    return canvas


def _share(flags: str) -> float:
    return 100 * flags.count("1") / len(flags)


def _bars(axes, arms: Sequence[str], values: Sequence[Sequence[float]], title: str) -> None:
    """The mean of each arm as a bar, and its seeds as dots side by side."""
    means = [sum(some) / len(some) for some in values]
    colours = [figures.ARMS[ARMS.index(arm)] for arm in arms]
    axes.bar(range(len(values)), means, width=0.7, color=colours, alpha=0.35)
    for place, (some, mean) in enumerate(zip(values, means, strict=True)):
        beside = [place + 0.09 * (number - (len(some) - 1) / 2) for number in range(len(some))]
        axes.plot(beside, some, "o", markersize=4, color=colours[place])
        axes.annotate(
            f"{mean:.0f}", (place, max(some) + 3), ha="center", color=figures.INK, fontsize=9
        )
    axes.set_xticks(range(len(values)), [textwrap.fill(SAID[arm], 10) for arm in arms], fontsize=8)
    axes.set_ylim(0, 112)
    axes.set_yticks(range(0, 101, 25))
    figures.tidy(axes, title)
