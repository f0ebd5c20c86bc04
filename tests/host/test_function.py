"""What a network computes of a prompt, on every family: the stock sampler's own, and the number."""

import pytest
import torch
import zoo_arms
from modular_safety_lora.function.inputs import EMPTY
from modular_safety_lora.function.measure import measured
from modular_safety_lora.function.network import empty_of, half_made, outputs, with_prompts
from modular_safety_lora.host.denoiser import in_output
from modular_safety_lora.host.families import suiting
from modular_safety_lora.lab import zoo
from modular_safety_lora.merge.in_function import SIDES, on_noise

pytestmark = pytest.mark.usefixtures("unloaded", "one_thread")
NEAR = 1e-4  # of a tensor's size: a batch is summed in another order than one picture


@pytest.fixture(scope="module", params=zoo.TWINS)
def small(request):
    """(family, MODEL) of every family, in fp32."""
    yield request.param, zoo.build(request.param)
    zoo_arms.loaded_off()


def off(one: torch.Tensor, other: torch.Tensor) -> float:
    return ((one - other).norm() / other.norm()).item()


def test_the_safe_model_has_1_the_base_0_and_so_has_one_that_was_taken_back(small):
    family, model = small
    tensors = zoo_arms.safety_lora(model, family)
    base, safe = zoo_arms.arms(model, family, tensors)
    found = zoo_arms.reference_of(base, safe, family, zoo_arms.asked())
    numbers = {}
    for name, strengths in {"safe": [1], "base": [], "undone": [1, -1], "half": [0.5]}.items():
        arm = type(base)(zoo_arms.with_lora(model, tensors, *strengths), base.texts)
        numbers[name], _ = measured(found, arm)
    assert numbers["safe"].is_measurable
    assert numbers["safe"].retained == pytest.approx(1.0)
    assert numbers["base"].retained == pytest.approx(0.0, abs=1e-6)
    assert numbers["base"].against == pytest.approx(1.0)
    assert abs(numbers["undone"].retained) <= 1e-3
    assert numbers["undone"].against == pytest.approx(1.0, abs=1e-3)
    assert 0.1 < numbers["half"].retained < 0.9


def test_it_is_asked_as_the_stock_sampler_asks_it(small):
    """Half-made pictures by its Euler steps, and y from the picture that it sees behind them."""
    family, model = small
    asks = zoo_arms.asked()
    texts = {name: each.conditioning for name, each in zoo_arms.texts_of(family).items()}
    empty = empty_of(model, zoo.TWINS[family].side)
    found = half_made(model, asks, texts, empty, lambda count: None)
    again = half_made(model, asks, texts, empty, lambda count: None)
    assert all(map(torch.equal, found, again))
    x, sigma = found
    sampling = model.get_model_object("model_sampling")
    y = outputs(model, asks, texts, found, lambda count: None)
    rows = iter(y.split(1))
    for place, ask in enumerate(asks):
        steps = round((1.0 - ask.level) / 0.05)
        levels = [round(1.0 - 0.05 * step, 6) for step in range(1, steps + 1)]
        assert levels[-1] == ask.level
        sigmas = [sampling.sigma_max, *(sampling.percent_to_sigma(1.0 - each) for each in levels)]
        sigmas = torch.tensor([float(each) for each in sigmas])
        assert sigma[place].item() == pytest.approx(sigmas[-1].item())
        noise = torch.randn(empty.shape, generator=torch.Generator().manual_seed(ask.seed))
        zero = torch.zeros_like(noise)
        first = sampling.noise_scaling(sigmas[:1], noise, zero, True)
        both = [texts[ask.of], texts[EMPTY]]
        guidance = suiting(model).guidance
        made = zoo_arms.by_the_stock_sampler(model, both, first, sigmas, guidance)
        assert off(made, x[place : place + 1]) < NEAR
        for text in (*ask.prompts, EMPTY):
            here, level = x[place : place + 1], sigma[place : place + 1]
            to_zero = torch.cat([level, torch.zeros(1)])
            seen = zoo_arms.by_the_stock_sampler(model, [texts[text]] * 2, here, to_zero)
            assert off(next(rows), in_output(sampling, seen, here, level)) < NEAR
    assert with_prompts(y, asks).shape[0] == sum(len(ask.prompts) for ask in asks)


def test_a_canary_on_noise_takes_the_smallest_picture_that_the_network_does(small, monkeypatch):
    """PixArt's grid of a small one divides by zero. What was measured is not run again."""
    family, model = small
    told = zoo.conditionings(family, 1)[0]
    made = on_noise(model, told, None)
    side = SIDES[zoo.TWINS[family].side > 64]
    assert made.noisy.shape == empty_of(model, side).shape and made.y.isfinite().all()
    monkeypatch.setattr(model.model, "_apply_model", None)
    again = on_noise(model, told, made.y)
    assert torch.equal(again.noisy, made.noisy) and again.y is made.y
