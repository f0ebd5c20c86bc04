"""UCE and RECE against their papers' formulas, on small matrices in float64."""

import dataclasses
import itertools

import numpy as np
import pytest
import torch
from modular_safety_lora.training.engine.aligning import beside
from modular_safety_lora.training.objectives import METHODS, rece, uce
from modular_safety_lora.training.objectives.closed_form import Sums, left, sizes

WIDTH, OUT = 12, (5, 20)  # of a token, and of two layers
LAMBDA, RHO, PROMPTS = 0.7, 0.3, 2


@pytest.fixture
def told():
    """Two layers, and tokens as columns: the concept's, what they shall be as, what stays."""
    draw = np.random.default_rng(1)
    layers = [draw.normal(size=(out, WIDTH)) for out in OUT]
    return layers, *(draw.normal(size=(WIDTH, count)) for count in (4, 4, 6))


def sums_of(layers, concept, instead, kept) -> Sums:
    products = ((concept, concept), (instead, concept), (instead, instead), (kept, kept))
    found = [torch.from_numpy(one @ other.T) for one, other in products]
    weights = torch.from_numpy(sum(layer.T @ layer for layer in layers))
    return Sums(*found, weights, PROMPTS)


def by_uce(w, concept, instead, kept, preserve: float = 1.0, ridge: float = LAMBDA):
    """Equation 7 of UCE, token by token: the weight after the edit."""
    first, second = ridge * w, ridge * np.eye(WIDTH)
    for token, star in zip(concept.T, instead.T, strict=True):
        first = first + np.outer(w @ star, token)
        second = second + np.outer(token, token)
    for token in kept.T:
        first = first + preserve * np.outer(w @ token, token)
        second = second + preserve * np.outer(token, token)
    return first @ np.linalg.inv(second)


def by_rece(layers, now, concept, ridge: float):
    """RECE's tokens that bring the concept back in the weights `now`."""
    first = ridge * np.eye(WIDTH) + sum(w.T @ w for w in now)
    second = sum(w.T @ w0 for w, w0 in zip(now, layers, strict=True))
    return np.linalg.inv(first) @ second @ concept


def test_uce_is_the_papers_formula(told):
    layers, concept, instead, kept = told
    sums = sums_of(*told)
    moved = uce.edit(sums.concept, sums.instead, sums.kept, LAMBDA).numpy()
    for w0 in layers:
        assert np.allclose(w0 + w0 @ moved, by_uce(w0, concept, instead, kept), atol=1e-10)
    assert sums.unit == pytest.approx((concept**2).sum() / WIDTH / PROMPTS)


@pytest.mark.parametrize("preserve", [1.0, 3.0])
@pytest.mark.parametrize("method", ["uce", "rece"])
def test_a_method_gives_the_weights_of_its_paper_after_each_round(told, method, preserve):
    layers, concept, instead, kept = told
    sums = dataclasses.replace(sums_of(*told), preserve=preserve)
    ridge = uce.LAMBDA * sums.unit
    now = [by_uce(w0, concept, instead, kept, preserve, ridge) for w0 in layers]
    erased, kept = concept, preserve**0.5 * kept
    maps = list(METHODS[method].maps(sums))
    assert len(maps) == METHODS[method].rounds == (1 if method == "uce" else 1 + rece.ROUNDS)
    for number, found in enumerate(maps):
        if number:
            size = np.mean(np.diag(sum(w.T @ w for w in now)))
            back = by_rece(layers, now, concept, rece.RHO * size)
            kept = np.hstack([kept, erased])
            now, erased = [by_uce(w, back, instead, kept, ridge=ridge) for w in now], back
        for w0, w in zip(layers, now, strict=True):
            assert np.allclose(w0 @ found.numpy(), w, atol=1e-9)
    assert all(not torch.allclose(one, two) for one, two in itertools.pairwise(maps))


def test_what_is_revived_is_what_the_edited_layers_take_for_the_concept(told):
    """The gradient of |W c' - W0 c|^2 + rho |c'|^2, summed over the layers, is zero there."""
    layers, concept, *_ = told
    sums = sums_of(*told)
    found = sums.identity + uce.edit(sums.concept, sums.instead, sums.kept, LAMBDA)
    back = rece.revival(sums.weights, found, RHO).numpy() @ concept
    now = [w0 @ found.numpy() for w0 in layers]
    slope = RHO * back
    for w, w0 in zip(now, layers, strict=True):
        slope = slope + w.T @ (w @ back - w0 @ concept)
    assert np.abs(slope).max() < 1e-9 and np.abs(back - concept).max() > 0.1


def test_what_is_left_is_counted_over_layers_and_tokens(told):
    layers, concept, instead, kept = told
    sums, found = sums_of(*told), torch.eye(WIDTH, dtype=torch.float64) * 0.9
    found[0, 1] = 0.4
    t = found.numpy()
    apart = sum(np.square(w @ (t @ concept - instead)).sum() for w in layers)
    moved = sum(np.square(w @ (t @ kept - kept)).sum() for w in layers)
    assert left(sums, found) == pytest.approx((apart, moved))
    before = sum(np.square(w @ (concept - instead)).sum() for w in layers)
    size = sum(np.square(w @ kept).sum() for w in layers)
    assert sizes(sums) == pytest.approx((before, size))


def test_what_stays_hardly_moves_and_moves_where_it_is_not_told(told):
    layers, concept, instead, kept = told
    alone = sums_of(layers, concept, instead, 0 * kept)
    both = sums_of(*told)
    moved = [left(both, next(uce.maps(each)))[1] / sizes(both)[1] for each in (both, alone)]
    assert moved[0] < 0.2 * moved[1], moved


def test_maces_equation_is_the_same_without_lambda(told):
    """Equation 2 of MACE, of many tokens, as its inverse needs; its weight of what stays is p."""
    draw, p = np.random.default_rng(2), 0.3
    layers, concept, instead, _ = told
    kept = draw.normal(size=(WIDTH, 3 * WIDTH))
    sums = dataclasses.replace(sums_of(layers, concept, instead, kept), preserve=p)
    moved = uce.edit(sums.concept, sums.instead, sums.preserve * sums.kept, 0.0).numpy()
    for w0 in layers:
        first = w0 @ instead @ concept.T + p * w0 @ kept @ kept.T
        expected = first @ np.linalg.inv(concept @ concept.T + p * kept @ kept.T)
        assert np.allclose(w0 + w0 @ moved, expected, atol=1e-10)


def test_words_that_two_texts_share_stand_beside_each_other_in_their_order():
    draw = torch.Generator().manual_seed(1)
    a, knife, weapon, comma, style, flower, *pads = torch.randn(16, 8, generator=draw)

    def row(*words: torch.Tensor) -> torch.Tensor:
        return torch.stack([*words, *pads][:12])

    one, two = row(a, knife, weapon, comma, style), row(a, 5 * flower, comma, style)
    assert beside(one, two).tolist()[:5] in ([0, 0, 1, 2, 3], [0, 1, 1, 2, 3])
    assert beside(one, two).tolist()[5:] == [4, 5, 6, 7, 8, 9, 10]
    assert beside(two, one).tolist()[2:4] == [3, 4]
    assert beside(one, one).tolist() == list(range(12))
    random = torch.randn(7, 8, generator=draw), torch.randn(7, 8, generator=draw)
    assert len(set(beside(*random).tolist())) >= 5  # nothing in common: most have their own
    assert beside(one, one[:1]).tolist() == [0] * 12
