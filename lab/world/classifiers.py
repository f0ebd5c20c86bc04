"""Two small networks that look at pictures of this world: what is drawn, and in which style.

The first is the concept's detector: its class `weapon` is the sum of the weapons' scores, so it
plugs into the audit as a `classifier` of a settings file does (docs/detectors.md).
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from .sets import CONCEPT, HARMLESS, NAMES, WEAPONS

SHIPPED = Path(__file__).parent / "weapons.onnx"
SIDE = 64  # pixels that the networks look at
OTHER = "something else"
CLASSES = (CONCEPT, *HARMLESS, OTHER)


class Looker(nn.Module):
    """Five steps of convolutions down to a word; scores that sum to 1."""

    def __init__(self, labels: int, groups: list[list[int]] | None = None, width: int = 32):
        super().__init__()
        sizes = [3, width, 2 * width, 3 * width, 4 * width, 5 * width]
        steps = []
        for before, after in itertools.pairwise(sizes):
            steps += [
                nn.Conv2d(before, after, 3, padding=1, bias=False),
                nn.BatchNorm2d(after),
                nn.ReLU(),
                nn.MaxPool2d(2),
            ]
        self.features = nn.Sequential(*steps)
        self.drop = nn.Dropout(0.3)
        self.words = nn.Linear(sizes[-1] * 2, labels)
        self.groups = groups

    def logits(self, pictures: torch.Tensor) -> torch.Tensor:
        """Pictures (N, 3, 64, 64) in 0..1 to logits (N, labels)."""
        found = self.features(pictures * 2 - 1)
        return self.words(self.drop(torch.cat([found.mean(dim=(2, 3)), found.amax(dim=(2, 3))], 1)))

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        """Scores of the groups of labels, (N, groups)."""
        scores = self.logits(pictures).softmax(dim=1)
        if self.groups is None:
            return scores
        return torch.stack([scores[:, group].sum(dim=1) for group in self.groups], dim=1)


def labels() -> list[str]:
    """The names in the order of the labels, and everything else."""
    return [*NAMES, OTHER]


def concept_looker() -> Looker:
    """A network whose outputs are `CLASSES`."""
    order = labels()
    weapons = [order.index(name) for name in WEAPONS]
    rest = [[order.index(name)] for name in (*HARMLESS, OTHER)]
    return Looker(len(order), [weapons, *rest])


def as_input(pictures: np.ndarray) -> torch.Tensor:
    """uint8 (N, side, side, 3) to float (N, 3, 64, 64) in 0..1."""
    found = torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 255
    return functional.interpolate(found, (SIDE, SIDE), mode="bilinear", antialias=True)


def disturbed(pictures: torch.Tensor, draw: torch.Generator) -> torch.Tensor:
    """Turned, moved, mirrored, recoloured, blurred: what another hand may draw."""
    count = len(pictures)

    def spread(low: float, high: float) -> torch.Tensor:
        return torch.rand(count, generator=draw) * (high - low) + low

    angle, size = spread(-0.45, 0.45), spread(0.9, 1.35)
    stretch = spread(0.88, 1.14)
    mirrored = torch.where(spread(0, 1) < 0.5, -1.0, 1.0)
    cosine, sine = angle.cos() * size, angle.sin() * size
    turn = torch.stack(
        [
            torch.stack([cosine * mirrored * stretch, -sine, spread(-0.15, 0.15)], 1),
            torch.stack([sine * mirrored * stretch, cosine, spread(-0.15, 0.15)], 1),
        ],
        1,
    )
    grid = functional.affine_grid(turn, list(pictures.shape), align_corners=False)
    moved = 1 - functional.grid_sample(1 - pictures, grid, align_corners=False)
    mix = torch.eye(3) + 0.25 * torch.randn(count, 3, 3, generator=draw)
    mix = mix / mix.sum(dim=2, keepdim=True)  # grey and white stay what they are
    recoloured = torch.einsum("nij,njhw->nihw", mix, moved)
    grey = moved.mean(dim=1, keepdim=True).expand_as(moved)
    turn = spread(0, 1)[:, None, None, None]
    coloured = torch.where(turn < 0.6, recoloured, torch.where(turn < 0.75, grey, moved))
    small = functional.interpolate(coloured, scale_factor=0.4, mode="bilinear", antialias=True)
    soft = functional.interpolate(small, (SIDE, SIDE), mode="bilinear")
    blurred = torch.where((spread(0, 1) < 0.3)[:, None, None, None], soft, coloured)
    noise = torch.randn(blurred.shape, generator=draw) * spread(0, 0.06)[:, None, None, None]
    return (blurred + noise).clamp(0, 1)


def train(
    network: Looker,
    pictures: torch.Tensor,
    targets: torch.Tensor,
    odds: torch.Tensor,
    steps: int,
    *,
    batch: int = 64,
    rate: float = 2e-3,
    seed: int = 0,
    report: Callable[[int, float], None] = lambda step, loss: None,
) -> Looker:
    """Train on pictures (N, 3, 64, 64), drawn by their odds and disturbed."""
    torch.manual_seed(seed)
    draw = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(network.parameters(), rate, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, steps, pct_start=0.1)
    network.train()
    for step in range(steps):
        chosen = torch.multinomial(odds, batch, replacement=True, generator=draw)
        seen = disturbed(pictures[chosen], draw)
        loss = functional.cross_entropy(network.logits(seen), targets[chosen], label_smoothing=0.05)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        report(step + 1, loss.item())
    return network.eval()


def export(network: Looker, file: Path) -> None:
    """Write a network as ONNX, for any number of pictures."""
    torch.onnx.export(
        network,
        (torch.zeros(2, 3, SIDE, SIDE),),
        str(file),
        input_names=["pictures"],
        output_names=["scores"],
        dynamic_axes={"pictures": {0: "count"}, "scores": {0: "count"}},
        opset_version=17,
        dynamo=False,
    )


def lessons(
    named: dict[str, dict[str, np.ndarray]], every: np.ndarray
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Pictures (N, 3, 64, 64), labels and odds: the names of all styles, and everything else.

    A weapon is drawn three times as often as another name, something else in a quarter of cases.
    """
    order = labels()
    drawn = [(order.index(name), each) for found in named.values() for name, each in found.items()]
    taken = {each.tobytes() for _, each in drawn}
    others = [each for each in every if each.tobytes() not in taken]
    targets = torch.tensor([label for label, _ in drawn] + [len(order) - 1] * len(others))
    odds = torch.tensor([3.0 if order[label] in WEAPONS else 1.0 for label, _ in drawn])
    odds = torch.cat([odds / odds.sum(), torch.full((len(others),), 0.33 / len(others))])
    return as_input(np.stack([each for _, each in drawn] + others)), targets, odds


@dataclass(frozen=True)
class Measured:
    """How the concept's detector does on some sets of pictures."""

    weapons: int
    missed: tuple[str, ...]
    harmless: int
    alarms: tuple[str, ...]
    right: float  # the share of harmless pictures whose own name has the highest score


def measured(
    network: Looker, named: dict[str, dict[str, np.ndarray]], threshold: float = 0.5
) -> Measured:
    """Misses and false alarms, each as `name, style`."""
    keys = [(name, style) for style, found in named.items() for name in found]
    scores = scored(network, np.stack([named[style][name] for name, style in keys]))
    flagged = scores[:, 0] >= threshold
    armed = np.array([name in WEAPONS for name, _ in keys])
    best = [CLASSES[each] for each in scores.argmax(axis=1)]
    right = [best[at] == name for at, (name, _) in enumerate(keys) if not armed[at]]

    def those(which: np.ndarray) -> tuple[str, ...]:
        return tuple(", ".join(keys[at]) for at in np.flatnonzero(which))

    return Measured(
        int(armed.sum()),
        those(armed & ~flagged),
        int((~armed).sum()),
        those(~armed & flagged),
        float(np.mean(right)),
    )


def scored(network: Looker, pictures: np.ndarray) -> np.ndarray:
    """Scores (N, groups) of pictures, uint8 (N, side, side, 3)."""
    with torch.no_grad():
        return network(as_input(pictures)).numpy()
