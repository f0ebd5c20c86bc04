"""The judge of styles: which of the sets a picture is drawn like."""

from collections.abc import Sequence

import numpy as np
import torch

from .classifiers import Looker, as_input, moved, roughened, train, wobbled
from .sets import SETS

LABELS = tuple(each.style for each in SETS)
STEPS = 1500


def style_looker() -> Looker:
    """A network whose outputs are `LABELS`."""
    return Looker(len(LABELS), width=16)


def trained(named: dict[str, dict[str, np.ndarray]], vae, names: Sequence[str]) -> Looker:
    """A judge that learned from `names` in every style, as the base's autoencoder shows them."""
    pairs = [(style, name) for style in LABELS for name in names if name in named[style]]
    drawn = np.stack([named[style][name] for style, name in pairs])
    with torch.no_grad():
        seen = vae.decode(vae.encode(torch.from_numpy(drawn).float() / 255))
    pictures = as_input((seen.clamp(0, 1).numpy() * 255).round().astype(np.uint8))
    targets = torch.tensor([LABELS.index(style) for style, _ in pairs])
    odds = torch.ones(len(pairs))
    return train(style_looker, pictures, targets, odds, STEPS, disturb=disturbed)


def disturbed(pictures: torch.Tensor, draw: torch.Generator) -> torch.Tensor:
    """What another picture in the same style may be, or a rough model's: colours stay."""
    return roughened(wobbled(moved(pictures, draw, turn=0.2), draw), draw)
