"""What the emoji world's classifiers learn from, and that a seed says what they become."""

import functools

import numpy as np
import pytest
import torch
from modular_safety_lora.lab.world import classifiers, sketches, styles

pytestmark = pytest.mark.long


def test_lessons_are_bent_a_little_and_each_by_its_own():
    lines = torch.ones(8, 3, 64, 64)
    lines[:, :, 20:44, 30:34] = 0
    bent = classifiers.wobbled(lines, torch.Generator().manual_seed(1))
    assert (bent - bent[:1]).abs().flatten(1).amax(dim=1)[1:].min() > 0.5
    assert (bent != lines).flatten(1).any(dim=1).all()
    share = (1 - bent).mean(dim=(1, 2, 3)) / (1 - lines).mean(dim=(1, 2, 3))
    assert share.min() > 0.5 and share.max() < 2 and (bent[:, :, :4] > 0.9).all()


def test_lessons_are_soft_or_grainy_by_chance():
    board = torch.ones(64, 3, 64, 64)
    board[..., ::2] = 0
    rough = classifiers.roughened(board, torch.Generator().manual_seed(1))
    away = (rough - board).abs().mean(dim=(1, 2, 3))
    soft = away > 0.3
    assert 0.1 < soft.float().mean() < 0.5 and away[~soft].max() > 4 * away[~soft].min() > 0


def test_a_sketch_that_is_coloured_in_keeps_its_shape_and_is_another_each_time():
    ring = np.full((96, 96, 3), 255, dtype=np.uint8)
    down, across = np.mgrid[:96, :96]
    away = np.hypot(down - 48, across - 48)
    ring[(away > 20) & (away < 26)] = 0
    painted = sketches.copies({"lucide": {"ring": ring}}, 20)
    assert len(painted) == 20
    seen = np.stack([found["ring"] for found in painted.values()]).astype(int)
    assert (seen[:, away > 34] == 255).all()  # outlines are a few pixels wide
    assert (np.ptp(seen[:, away < 18], axis=2).max(axis=1) > 30).mean() > 0.5  # colours inside
    assert len(np.unique(seen.reshape(20, -1), axis=0)) == 20
    again = sketches.copies({"lucide": {"ring": ring}}, 20)
    assert all(
        np.array_equal(found["ring"], again[style]["ring"]) for style, found in painted.items()
    )


def test_a_seed_says_what_a_network_becomes():
    lessons = (torch.rand(4, 3, 64, 64), torch.arange(4), torch.ones(4))
    make = functools.partial(classifiers.Looker, 4, width=4)

    def weights(seed: int) -> torch.Tensor:
        torch.rand(7)  # whatever was drawn before it
        made = classifiers.train(make, *lessons, 2, disturb=styles.disturbed, batch=4, seed=seed)
        return torch.cat([each.detach().flatten() for each in made.parameters()])

    assert torch.equal(weights(1), weights(1)) and not torch.equal(weights(1), weights(2))
