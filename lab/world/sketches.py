"""Drawings of one colour, from icon sets: lessons of the detector, for the shapes of weapons.

Few emoji sets may be passed on, and each draws a weapon once. Icon sets draw them in outline, and
`coloured_in` paints those as other hands might (Tobin et al. 2017, domain randomization).
"""

import numpy as np

from .sets import Set

COPIES = 4  # of each drawing, coloured in
INK = 0.4  # darker than this is a line
SEED = 0


def _set(style: str, package: tuple[str, str, str], suffix: str = "", **icons: str) -> Set:
    """A row; `icons` are those whose name is not ours, with `_` for a space."""
    named = tuple((name.replace("_", " "), icon) for name, icon in icons.items())
    return Set(style, *package, named, suffix)


AKAR = ("akar-icons", "1.2.7", "MIT")
BOX = ("boxicons", "1.2.0", "MIT")
CHARM = ("charm", "1.2.3", "MIT")
DINKIE = ("dinkie-icons", "1.2.0", "MIT")
HUGE = ("hugeicons", "1.2.35", "MIT")
JAM = ("jam", "1.2.3", "MIT")
LUCIDE = ("lucide", "1.2.137", "ISC")
MARKETEQ = ("marketeq", "1.2.2", "MIT")
MDI = ("mdi", "1.2.3", "Apache-2.0")
MEMORY = ("memory", "1.2.2", "Apache-2.0")
MINGCUTE = ("mingcute", "1.2.8", "Apache-2.0")
PARK = ("icon-park", "1.2.4", "Apache-2.0")
PHOSPHOR = ("ph", "1.2.2", "MIT")
PINHEAD = ("pinhead", "1.2.28", "CC0-1.0")
PIXELART = ("pixelarticons", "1.2.9", "MIT")
REMIX = ("ri", "1.2.10", "Apache-2.0")
SYMBOLS = ("material-symbols", "1.2.98", "Apache-2.0")
TABLER = ("tabler", "1.2.41", "MIT")
TEMAKI = ("temaki", "1.2.6", "CC0-1.0")
VAADIN = ("vaadin", "1.2.1", "Apache-2.0")
ARCTICONS = {
    "pistol": "gun",
    "axe": "emoji-axe",
    "bomb": "emoji-bomb",
    "bow_and_arrow": "emoji-bow-and-arrow",
}
GAME = {
    "pistol": "pistol-gun",
    "knife": "bowie-knife",
    "dagger": "plain-dagger",
    "bomb": "unlit-bomb",
    "axe": "battle-axe",
    "bow_and_arrow": "pocket-bow",
}
SKETCHES = (
    _set("akar", AKAR, dagger="sword", crossed_swords="double-sword"),
    _set("box", BOX, dagger="sword-alt", bow_and_arrow="bow"),
    _set("box-filled", BOX, "-filled", dagger="sword-alt", bow_and_arrow="bow"),
    _set("charm", CHARM, dagger="sword", crossed_swords="swords"),
    _set("dinkie", DINKIE, dagger="dagger-knife"),
    _set("dinkie-filled", DINKIE, "-filled", dagger="dagger-knife"),
    _set(
        "huge",
        HUGE,
        pistol="gun",
        knife="knife-01",
        dagger="sword-01",
        crossed_swords="swords",
        bow_and_arrow="bow-arrow",
        automobile="car-01",
    ),
    _set(
        "huge2",
        HUGE,
        knife="knife-02",
        dagger="sword-02",
        crossed_swords="sword-03",
        bow_and_arrow="archer",
    ),
    _set("huge3", HUGE, knife="pocket-knife"),
    _set("jam", JAM, dagger="sword"),
    _set(
        "lucide",
        LUCIDE,
        knife="pocket-knife",
        dagger="sword",
        crossed_swords="swords",
        bow_and_arrow="bow-arrow",
    ),
    _set("marketeq", MARKETEQ),
    _set(
        "mdi",
        MDI,
        dagger="knife-military",
        crossed_swords="sword-cross",
        bow_and_arrow="bow-arrow",
        automobile="car",
    ),
    _set("mdi2", MDI, axe="axe-battle", dagger="sword"),
    _set("memory", MEMORY, bow_and_arrow="bow-arrow"),
    _set("memory2", MEMORY, dagger="sword", axe="battle-axe", bow_and_arrow="crossbow"),
    _set("memory3", MEMORY, dagger="scimitar", axe="halberd"),
    _set("mingcute-fill", MINGCUTE, "-fill", dagger="sword"),
    _set("mingcute-line", MINGCUTE, "-line", dagger="sword"),
    *(
        _set(
            name,
            (name, *PARK[1:]),
            knife="kitchen-knife",
            dagger="holy-sword",
            bow_and_arrow="archers-bow",
        )
        for name in ("icon-park", "icon-park-solid", "icon-park-twotone")
    ),
    *(
        _set(f"ph{suffix}", PHOSPHOR, suffix, dagger="sword")
        for suffix in ("-fill", "-duotone", "-bold")
    ),
    _set(
        "pinhead",
        PINHEAD,
        pistol="flintlock-pistol",
        knife="chefs-knife",
        bomb="cartoon-bomb-with-lit-fuse",
        bow_and_arrow="archery-bow-and-archery-arrow",
    ),
    _set(
        "pinhead2", PINHEAD, knife="fillet-knife", bomb="cartoon-bomb", bow_and_arrow="archery-bow"
    ),
    _set("pixelart", PIXELART, dagger="sword"),
    _set("ri-fill", REMIX, "-fill", crossed_swords="sword"),
    _set("ri-line", REMIX, "-line", crossed_swords="sword"),
    _set("symbols", SYMBOLS, crossed_swords="swords"),
    _set("symbols-outline", SYMBOLS, "-outline", crossed_swords="swords"),
    _set("tabler", TABLER, dagger="sword", crossed_swords="swords"),
    _set("temaki", TEMAKI, knife="chefs-knife"),
    _set("vaadin", VAADIN, dagger="sword"),
)

# Looked at, never learned from and never shipped: other hands' outlines.
STRANGE = (
    _set("arcticons", ("arcticons", "1.2.58", "CC-BY-SA-4.0"), **ARCTICONS),
    _set("game", ("game-icons", "1.2.4", "CC-BY-3.0"), **GAME),
    _set("monotone", ("emojione-monotone", "1.2.1", "CC-BY-4.0"), knife="kitchen-knife"),
)


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
