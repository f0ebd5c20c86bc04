"""GEM's loss against its paper's formula, and its slope where it has a corner."""

import numpy as np
import pytest
import torch
from modular_safety_lora.training.objectives.gem import gem_loss


@pytest.fixture
def outputs() -> list[torch.Tensor]:
    """The student's, for the surrogate, for the concept: (pictures, channels, 3, 3)."""
    draw = torch.Generator().manual_seed(1)
    return [torch.randn(4, 2, 3, 3, generator=draw) for _ in range(3)]


@pytest.mark.parametrize("eta", [0.0, 0.4, 1.0, 2.0])
def test_the_loss_is_the_papers_of_each_picture(outputs, eta):
    y, s, c = (each.double().numpy() for each in outputs)
    each = [
        max(0.0, np.sqrt(np.mean((y[n] - s[n]) ** 2)) - eta * np.sqrt(np.mean((y[n] - c[n]) ** 2)))
        for n in range(len(y))
    ]
    assert gem_loss(*outputs, eta).item() == pytest.approx(np.mean(each), abs=1e-6)


def test_it_draws_to_the_surrogate_off_the_concept_and_ends_where_it_is_nearer(outputs):
    _, surrogate, concept = outputs
    apart = (surrogate - concept).square().mean(dim=(1, 2, 3)).sqrt().mean()

    def at(share: float) -> tuple[torch.Tensor, torch.Tensor]:
        student = (concept + share * (surrogate - concept)).requires_grad_()
        loss = gem_loss(student, surrogate, concept, 0.5)
        return loss, torch.autograd.grad(loss, student)[0]

    loss, slope = at(0.5)
    assert loss.item() == pytest.approx(0.25 * apart.item(), rel=1e-5)
    assert all((a * b).sum() < 0 for a, b in zip(slope, surrogate - concept, strict=True))
    for share in (0.7, 1.0):  # past two thirds it is nearer than half as far, or there
        loss, slope = at(share)
        assert loss == 0 and not slope.any()
    loss, slope = at(0.0)  # where every student starts: the distance of 0 has no slope, not NaN
    assert loss.item() == pytest.approx(apart.item(), rel=1e-5)
    assert slope.isfinite().all() and slope.any()
