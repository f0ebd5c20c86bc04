"""A small network that looks at pictures of this world, and how it is trained.

Two are made of it: the detector of weapons (weapons.py) and the judge of styles (styles.py).
"""

import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional

SIDE = 64  # pixels that the networks look at


class Looker(nn.Module):
    """Convolutions in four sizes, from half the side down to a sixteenth; scores that sum to 1."""

    def __init__(self, labels: int, groups: list[list[int]] | None = None, width: int = 32):
        super().__init__()
        sizes = [width, 2 * width, 4 * width, 6 * width]
        steps = [*_step(3, width, 5, stride=2)]  # the whole side would take most of the time
        for before, after in itertools.pairwise(sizes):
            steps += [nn.MaxPool2d(2), *_step(before, after), *_step(after, after)]
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


def _step(before: int, after: int, kernel: int = 3, stride: int = 1) -> list[nn.Module]:
    convolution = nn.Conv2d(before, after, kernel, stride, kernel // 2, bias=False)
    return [convolution, nn.BatchNorm2d(after), nn.ReLU()]


def as_input(pictures: np.ndarray) -> torch.Tensor:
    """uint8 (N, side, side, 3) to float (N, 3, 64, 64) in 0..1."""
    found = torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 255
    return functional.interpolate(found, (SIDE, SIDE), mode="bilinear", antialias=True)


def moved(
    pictures: torch.Tensor, draw: torch.Generator, turn: float, shrink: float = 1.35
) -> torch.Tensor:
    """Turned by up to `turn` radians, mirrored, shifted, made smaller; white comes in."""
    count = len(pictures)

    def spread(low: float, high: float) -> torch.Tensor:
        return torch.rand(count, generator=draw) * (high - low) + low

    angle, size, stretch = spread(-turn, turn), spread(0.9, shrink), spread(0.88, 1.14)
    mirrored = torch.where(spread(0, 1) < 0.5, -1.0, 1.0)
    cosine, sine = angle.cos() * size, angle.sin() * size
    matrix = torch.stack(
        [
            torch.stack([cosine * mirrored * stretch, -sine, spread(-0.15, 0.15)], 1),
            torch.stack([sine * mirrored * stretch, cosine, spread(-0.15, 0.15)], 1),
        ],
        1,
    )
    grid = functional.affine_grid(matrix, list(pictures.shape), align_corners=False)
    return 1 - functional.grid_sample(1 - pictures, grid, align_corners=False)


def wobbled(pictures: torch.Tensor, draw: torch.Generator) -> torch.Tensor:
    """Bent by a smooth random field (Simard et al. 2003, elastic distortions), each by its own."""
    count, side = len(pictures), pictures.shape[-1]
    coarse = torch.randn(count, 2, 7, 7, generator=draw)
    size = 0.1 * torch.rand(count, 1, 1, 1, generator=draw)
    field = functional.interpolate(coarse * size, (side, side), mode="bicubic")
    still = torch.eye(2, 3).expand(count, 2, 3)
    grid = functional.affine_grid(still, list(pictures.shape), align_corners=False)
    bent = grid + field.permute(0, 2, 3, 1)
    return 1 - functional.grid_sample(1 - pictures, bent, align_corners=False)


def disturbed(pictures: torch.Tensor, draw: torch.Generator) -> torch.Tensor:
    """Moved, wobbled, recoloured, blurred: what another hand may draw, or a rough model."""
    count = len(pictures)
    drawn = wobbled(moved(pictures, draw, turn=0.8, shrink=1.6), draw)
    mix = torch.eye(3) + 0.25 * torch.randn(count, 3, 3, generator=draw)
    mix = mix / mix.sum(dim=2, keepdim=True)  # grey and white stay what they are
    recoloured = torch.einsum("nij,njhw->nihw", mix, drawn)
    painted = 1 - (1 - drawn) * (torch.rand(count, 3, 1, 1, generator=draw) * 0.7 + 0.3)
    grey = drawn.mean(dim=1, keepdim=True).expand_as(drawn)
    which = torch.rand(count, 1, 1, 1, generator=draw)
    coloured = torch.where(which < 0.7, drawn, painted)
    coloured = torch.where(which < 0.4, recoloured, torch.where(which < 0.5, grey, coloured))
    return roughened(coloured, draw)


def roughened(pictures: torch.Tensor, draw: torch.Generator) -> torch.Tensor:
    """Blurred and grainy by chance."""

    def chance() -> torch.Tensor:
        return torch.rand(len(pictures), generator=draw)[:, None, None, None]

    small = functional.interpolate(pictures, scale_factor=0.4, mode="bilinear", antialias=True)
    soft = functional.interpolate(small, (SIDE, SIDE), mode="bilinear")
    blurred = torch.where(chance() < 0.3, soft, pictures)
    noise = torch.randn(blurred.shape, generator=draw) * chance() * 0.06
    return (blurred + noise).clamp(0, 1)


def train(
    make: Callable[[], Looker],
    pictures: torch.Tensor,
    targets: torch.Tensor,
    odds: torch.Tensor,
    steps: int,
    *,
    disturb: Callable[[torch.Tensor, torch.Generator], torch.Tensor] = disturbed,
    batch: int = 64,
    rate: float = 2e-3,
    seed: int = 0,
    report: Callable[[int, float], None] = lambda step, loss: None,
) -> Looker:
    """Make a network and train it on pictures (N, 3, 64, 64), drawn by their odds and disturbed."""
    torch.manual_seed(seed)
    network = make()
    draw = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(network.parameters(), rate, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, steps, pct_start=0.1)
    network.train()
    for step in range(steps):
        chosen = torch.multinomial(odds, batch, replacement=True, generator=draw)
        seen = disturb(pictures[chosen], draw)
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


def scored(network: Callable, pictures: np.ndarray) -> np.ndarray:
    """Scores (N, groups) of pictures, uint8 (N, side, side, 3)."""
    with torch.no_grad():
        return network(as_input(pictures)).numpy()
