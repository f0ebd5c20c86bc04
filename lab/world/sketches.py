"""Drawings of one colour, from icon sets: lessons of the detector, for the shapes of weapons.

Few emoji sets may be passed on, and each draws a weapon once. Icon sets draw them in outline, and
`coloured_in` paints those as other hands might (Tobin et al. 2017, domain randomization).
"""

import numpy as np

COPIES = 4  # of each drawing, coloured in
INK = 0.4  # darker than this is a line
SEED = 0


def copies(
    named: dict[str, dict[str, np.ndarray]], count: int = COPIES
) -> dict[str, dict[str, np.ndarray]]:
    """The drawings of every style, each coloured in `count` times."""
    draw = np.random.default_rng(SEED)
    return {
        f"{style}, coloured {number}": {
            name: coloured_in(each, draw) for name, each in drawn.items()
        }
        for number in range(count)
        for style, drawn in named.items()
    }


def coloured_in(drawing: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    """A line drawing, uint8 (side, side, 3), with colours, shades and an outline by chance."""
    from scipy import ndimage

    ink = 1 - drawing.mean(axis=2, keepdims=True) / 255  # (side, side, 1)
    lines = ink[..., 0] > INK
    inside = ndimage.binary_fill_holes(lines)
    regions, count = ndimage.label(inside & ~lines)
    side = len(drawing)
    if count and draw.random() < 0.3:
        under = np.where(inside[..., None], _paint(side, draw), 1.0)
    else:
        under = np.ones((side, side, 3))
        for region in range(1, count + 1):
            under = np.where((regions == region)[..., None], _paint(side, draw), under)
    stroke = _paint(side, draw)
    if count and draw.random() < 0.5:
        stroke = draw.random(3) * draw.uniform(0, 0.4)
    seen = under * (1 - ink) + stroke * ink
    if draw.random() < 0.4:
        near = ndimage.gaussian_filter(inside.astype(float), 1.5) > 0.05
        seen = np.where((near & ~inside)[..., None], draw.random(3) * 0.5, seen)
    return (seen * 255).round().astype(np.uint8)


def _paint(side: int, draw: np.random.Generator) -> np.ndarray:
    """One colour or two, parted by a line, and shaded across it: float (side, side, 3) in 0..1."""
    colours = draw.random((2, 3)) * draw.uniform(0.5, 1)
    if draw.random() < 0.5:
        colours[0] = draw.uniform(0.3, 0.9)  # metal
    angle, at = draw.uniform(0, 2 * np.pi), draw.uniform(-0.5, 0.5)
    across, down = np.meshgrid(np.linspace(-1, 1, side), np.linspace(-1, 1, side))
    along = (across * np.cos(angle) + down * np.sin(angle))[..., None]
    parted = (along > at) & (draw.random() < 0.6)
    return (np.where(parted, *colours) + draw.uniform(0, 0.3) * along).clip(0, 1)
