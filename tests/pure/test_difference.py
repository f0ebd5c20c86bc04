"""What the file holds of a weight's difference, against singular values in float64."""

import pytest
import torch
from modular_safety_lora.extraction.change import difference, low_rank, rounding_of
from modular_safety_lora.extraction.settings import Extraction
from modular_safety_lora.options.choices import ChoiceError

SHAPES = [(48, 64), (96, 32), (40, 16, 3, 3), (24, 40, 1, 1)]
EXACT = torch.float32


def changed(shape, seed: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    """A weight, and the same with a change whose singular values fall as training leaves them."""
    generator = torch.Generator().manual_seed(seed)
    w0, noise = (torch.randn(shape, generator=generator) for _ in range(2))
    found = torch.linalg.svd(noise.flatten(1), full_matrices=False)
    falling = torch.arange(1, len(found.S) + 1).float().reciprocal()
    return w0, w0 + 0.1 * ((found.U * falling) @ found.Vh).reshape(shape)


def shares(change: torch.Tensor) -> torch.Tensor:
    squares = torch.linalg.svdvals(change.double().flatten(1)).square()
    return squares.cumsum(0) / squares.sum()


def product(parts) -> torch.Tensor:
    """As ComfyUI makes a change of a LoRA's factors."""
    return parts["lora_B.weight"].flatten(1) @ parts["lora_A.weight"].flatten(1)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("keep", [0.5, 0.9])
def test_a_share_has_the_least_rank_and_the_best_change_of_it(shape, keep):
    w0, safe = changed(shape)
    found = difference(w0, safe, EXACT, Extraction(keep=keep, precision="fp32"))
    best = shares(safe - w0)
    assert found.rank == int((best < keep).sum()) + 1
    assert found.parts["lora_A.weight"].shape == (found.rank, *shape[1:])
    assert found.parts["lora_B.weight"].shape == (shape[0], found.rank, *[1] * (len(shape) - 2))
    kept = 1.0 - found.lost / found.square
    assert kept == pytest.approx(best[found.rank - 1].item(), abs=1e-5)
    lost = (safe - w0).flatten(1) - product(found.parts)
    assert lost.square().sum().item() == pytest.approx(found.lost, rel=1e-4)


@pytest.mark.parametrize("rank", [2, 4])
def test_a_rank_that_is_searched_at_random_is_the_best_one_and_the_same_each_time(rank):
    w0, safe = changed((200, 300))
    how = Extraction(form="rank", rank=rank, precision="fp32")
    state = torch.get_rng_state()
    found = [difference(w0, safe, EXACT, how)]
    assert torch.equal(state, torch.get_rng_state())
    torch.manual_seed(7)
    found.append(difference(w0, safe, EXACT, how))
    assert all(torch.equal(found[0].parts[name], found[1].parts[name]) for name in found[0].parts)
    kept = 1.0 - found[0].lost / found[0].square
    assert kept == pytest.approx(shares(safe - w0)[rank - 1].item(), abs=1e-3)


def test_the_factors_are_of_equal_size():
    w0, safe = changed((64, 64))
    up, down = low_rank(safe - w0, Extraction(keep=0.9))
    assert up.norm(dim=0) == pytest.approx(down.norm(dim=1), rel=1e-3)


@pytest.mark.parametrize("how", [Extraction(form="full"), Extraction(keep=1.0)])
def test_what_would_be_no_smaller_is_kept_as_it_is(how):
    w0, safe = changed((16, 24))
    found = difference(w0, safe, EXACT, how)
    assert found.rank == 0 and found.parts.keys() == {"diff"}
    assert found.parts["diff"].dtype == torch.bfloat16 and 0.0 < found.lost < 1e-5 * found.square
    vector = difference(w0[0], safe[0], EXACT, Extraction())
    assert vector.parts.keys() == {"diff"}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float8_e4m3fn])
def test_one_that_is_the_other_rounded_is_equal(dtype):
    weight = torch.randn(50, 50, generator=torch.Generator().manual_seed(2))
    held = weight.to(dtype).float()
    assert difference(held, weight, dtype, Extraction()) is None
    assert difference(weight, held, dtype, Extraction()) is None
    moved = weight.clone()
    moved[3, 4] *= 1.5
    assert difference(held, moved, dtype, Extraction(form="full")).square > 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_size_of_rounding_is_what_rounding_does(dtype):
    weight = 0.02 * torch.randn(400, 400, generator=torch.Generator().manual_seed(3))
    error = (weight - weight.to(dtype).float()).double().square().sum().item()
    assert rounding_of(weight, dtype) == pytest.approx(error, rel=0.05)


def test_settings_that_can_not_be_are_refused():
    with pytest.raises(ChoiceError, match="form is 'some'"):
        Extraction(form="some")
    for wrong in ({"keep": 1.5}, {"keep": float("nan")}, {"rank": 0}, {"rank": 2.5}):
        with pytest.raises(ValueError, match="it must be"):
            Extraction(**wrong)
