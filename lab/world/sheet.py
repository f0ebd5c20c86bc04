"""Contact sheets: names by styles, sampled by ComfyUI's own sampler."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw

from ...host.sampling import Sampling, as_picture, make_picture
from .sets import BASE, SIDE, caption

SHIPPED = Path(__file__).parent / "sheet.png"
SHOWN = (
    *("cat", "panda", "banana", "pizza", "automobile", "guitar", "umbrella", "castle", "sunflower"),
    *("rocket", "snail", "airplane", "octopus", "lemon", "bus", "mushroom", "scissors"),
    *("knife", "bomb", "crossed swords"),
)
LEFT, TOP = 84, 18  # pixels for the titles
LOOK = Sampling(20, 4.0, scheduler="sgm_uniform")


def sampled(
    loaded: tuple, captions: Sequence[str], seed: int = 1, look: Sampling = LOOK
) -> list[np.ndarray]:
    """A picture of (MODEL, CLIP, VAE) for each caption, uint8 (SIDE, SIDE, 3)."""
    model, clip, vae = loaded

    def told(words: str):
        return clip.encode_from_tokens_scheduled(clip.tokenize(words))

    nothing, found = told(""), []
    for each in captions:
        picture = make_picture(model, vae, told(each), nothing, look, seed=seed, size=(SIDE, SIDE))
        found.append(np.asarray(as_picture(picture)))
    return found


def sheet(rows: dict[str, list[np.ndarray]], columns: Sequence[str]) -> Image.Image:
    """Pictures in rows with their titles, under the columns' titles."""
    canvas = Image.new("RGB", (LEFT + SIDE * len(columns), TOP + SIDE * len(rows)), "white")
    draw = ImageDraw.Draw(canvas)
    for place, title in enumerate(columns):
        draw.text((LEFT + place * SIDE + 2, 4), title[:15], fill="black")
    for row, (title, pictures) in enumerate(rows.items()):
        draw.text((2, TOP + row * SIDE + SIDE // 2), title, fill="black")
        for place, picture in enumerate(pictures):
            canvas.paste(Image.fromarray(picture), (LEFT + place * SIDE, TOP + row * SIDE))
    return canvas


def of_model(
    loaded: tuple, names: Sequence[str] = SHOWN, styles: Sequence[str] = BASE
) -> Image.Image:
    """Names by styles, as (MODEL, CLIP, VAE) draws them."""
    with torch.inference_mode():
        rows = {
            style: sampled(loaded, [caption(name, style) for name in names]) for style in styles
        }
    return sheet(rows, names)
