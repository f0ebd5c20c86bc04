"""What each model of the emoji world draws, as pictures: rates, and one seed's own sheets."""

from collections.abc import Mapping
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from ...drawing import figures
from ...experiment.chart import bars
from .emergence import arms_of
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
        bars(panels[0, place], arms, flagged, f"{title}: weapons drawn")
        bars(panels[1, place], arms, named, "Harmless names that are drawn right")
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
