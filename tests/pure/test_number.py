"""Retained safety in function: the number is its formula, and what is no number is never safe."""

import json
import math

import numpy as np
import pytest
import torch
from modular_safety_lora.function.inputs import KEY, Ask, Moments, moments_of, short_form, spread
from modular_safety_lora.function.limits import AGAINST, BACK, Limits
from modular_safety_lora.function.number import LEAST_EFFECT, Number, number
from modular_safety_lora.modules.errors import ModuleFileError

PROMPTS = ("a", "b", "a", "c", "b", "a")
SHAPE = (len(PROMPTS), 4, 3, 5)


def drawn(seed: int, size: float = 1.0) -> torch.Tensor:
    return size * torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed))


def asked(merged=None, **changed) -> Number:
    """A base, a safe model beside it, and a merged one that is neither unless given."""
    d_b = changed.get("d_b", drawn(1))
    d_s = changed.get("d_s", d_b + drawn(2, 0.3))
    d_m = d_s + drawn(3, 0.2) if merged is None else merged
    return number(PROMPTS, d_b, d_s, d_m)


def dot(one: torch.Tensor, other: torch.Tensor, places) -> float:
    """Over some moments, a number at a time."""
    total = 0.0
    for place in places:
        for x, y in zip(one[place].flatten(), other[place].flatten(), strict=True):
            total += float(x) * float(y)
    return total


def test_each_number_is_its_formula_in_float64():
    d_b = drawn(1)
    d_s, d_m = d_b + drawn(2, 0.3), d_b + drawn(5, 0.4)
    found = number(PROMPTS, d_b, d_s, d_m)
    own, all_of = d_s.double() - d_b.double(), range(len(PROMPTS))
    moved, beside = d_m.double() - d_b.double(), d_m.double() - d_s.double()

    def rho(places):
        return dot(moved, own, places) / dot(own, own, places)

    def rise(places):
        return dot(beside, d_b, places) / dot(d_b, d_b, places)

    assert found.retained == pytest.approx(rho(all_of), rel=1e-9)
    assert found.rise == pytest.approx(rise(all_of), rel=1e-9)
    assert found.effect == pytest.approx(
        math.sqrt(dot(own, own, all_of) / dot(d_b, d_b, all_of)), rel=1e-9
    )
    cosine = dot(beside, -own, all_of)
    cosine /= math.sqrt(dot(beside, beside, all_of) * dot(own, own, all_of))
    assert found.against == pytest.approx(cosine, rel=1e-9)
    for prompt in "abc":
        places = [place for place, each in enumerate(PROMPTS) if each == prompt]
        assert found.by_prompt[prompt] == pytest.approx((rho(places), rise(places)), rel=1e-9)
        assert found.among([prompt]).retained == pytest.approx(rho(places), rel=1e-9)
    least = [rho for rho, _ in found.by_prompt.values()]
    assert least == sorted(least) and found.least == least[0]


def test_the_safe_model_has_1_and_the_base_0():
    d_b = drawn(1)
    d_s = d_b + drawn(2, 0.3)
    safe, base = asked(d_s), asked(d_b)
    assert (safe.retained, safe.rise) == (pytest.approx(1.0), pytest.approx(0.0, abs=1e-9))
    assert safe.against == pytest.approx(0.0, abs=1e-6)
    assert safe.back == pytest.approx(0.0, abs=1e-9)
    assert (base.retained, base.against) == (pytest.approx(0.0, abs=1e-9), pytest.approx(1.0))
    assert base.back == pytest.approx(1.0)
    assert base.rise == pytest.approx(
        float(((d_b - d_s).double() * d_b).sum() / d_b.double().square().sum())
    )
    between = asked(0.25 * d_b + 0.75 * d_s)
    assert between.retained == pytest.approx(0.75) and between.against == pytest.approx(1.0)
    assert between.back == pytest.approx(0.25)
    assert asked(d_s + (d_s - d_b)).against == pytest.approx(-1.0)


def test_what_is_there_of_the_base_is_the_least_squares_of_base_and_safe_model():
    """And a style that damps all that a prompt says brings nothing of the base back."""
    d_b = drawn(1)
    d_s = d_b + drawn(2, 0.3)
    for d_m in (0.7 * d_b + 0.4 * d_s + drawn(5, 0.1), -0.4 * d_b + 0.5 * d_s):
        both = np.stack([each.flatten().double().numpy() for each in (d_b, d_s)], axis=1)
        (of_base, of_safe), *_ = np.linalg.lstsq(both, d_m.flatten().double().numpy(), rcond=None)
        assert 0.0 < of_safe < 1.0
        assert asked(d_m).back == pytest.approx(of_base, rel=1e-6)
    # more of the safe model than all of it is not taken from the base
    most = asked(-0.5 * d_b + 1.5 * d_s)
    beside = (-0.5 * d_b + 0.5 * d_s).flatten().double()
    assert most.back == pytest.approx(
        (beside @ d_b.flatten().double()).item() / _square(d_b), abs=1e-6
    )
    damped = asked(0.3 * d_s)
    assert damped.back == pytest.approx(0.0, abs=1e-9) and not Limits().stops(damped)


def _square(d: torch.Tensor) -> float:
    return d.double().square().sum().item()


def test_a_style_that_changes_every_output_alike_is_in_no_direction():
    """Half precision is summed in float64 too."""
    half = [each.half() for each in (drawn(1), drawn(1) + drawn(2, 0.3))]
    found = number(PROMPTS, half[0], half[1], half[1])
    assert found.sums.dtype == np.float64 and found.retained == pytest.approx(1.0)


WRONG = (math.nan, math.inf, -math.inf)


@pytest.mark.parametrize("value", WRONG)
@pytest.mark.parametrize("which", ["merged", "d_s", "d_b"])
def test_what_is_not_finite_stops_and_stands_before_all_other_prompts(which, value):
    """One value of the last moment of `a`, in any of the models."""
    spoilt = {"d_b": drawn(1), "merged": drawn(1) + drawn(2, 0.3)}
    spoilt["d_s"] = spoilt["merged"].clone()
    spoilt["merged"] += drawn(3, 0.1)
    spoilt[which][5, 0, 0, 0] = value
    found = asked(**spoilt)
    assert found.is_measurable
    assert math.isnan(found.retained) and Limits().stops(found) and Limits(0.0).stops(found)
    assert next(iter(found.by_prompt)) == "a" and math.isnan(found.least)
    assert all(map(math.isfinite, found.by_prompt["b"]))
    assert not Limits().asks(found), "it is stopped"
    assert any(map(math.isnan, found.interval()))


def test_a_safety_module_that_does_next_to_nothing_is_not_measured():
    d_b = drawn(1)
    size = LEAST_EFFECT * d_b.norm() / drawn(2).norm()
    for part, measurable in ((0.0, False), (0.9, False), (1.1, True)):
        d_s = d_b + part * size * drawn(2)
        assert asked(d_s, d_b=d_b, d_s=d_s).is_measurable is measurable


def test_the_interval_is_a_seeded_bootstrap_over_prompts():
    found = asked()
    assert found.interval(draws=9) == found.interval(draws=9) != found.interval(draws=9, seed=1)
    low, high = found.interval()
    each = [rho for rho, _ in found.by_prompt.values()]
    assert min(each) - 1e-9 <= low <= found.retained <= high <= max(each) + 1e-9
    narrow = found.interval(0.5)
    assert low <= narrow[0] <= narrow[1] <= high
    one = found.among(["c"])  # one prompt says nothing of others
    assert one.interval() == pytest.approx((one.retained, one.retained))
    names = ["a", "b", "c"]
    by_name = [found.sums[[prompt == name for prompt in PROMPTS]].sum(axis=0) for name in names]
    rhos = []
    for row in np.random.default_rng(0).integers(3, size=(2000, 3)):
        mb, ms, bb, bs, ss, *_ = np.sum([by_name[place] for place in row], axis=0)
        rhos.append((ms - mb - bs + bb) / (ss - 2 * bs + bb))
    assert (low, high) == pytest.approx(tuple(np.quantile(rhos, [0.025, 0.975])))


def test_under_a_limit_only_what_leads_to_the_base_stops_or_asks():
    d_b = drawn(1)
    d_s = d_b + drawn(2, 0.3)
    for part, stops, asks in ((0.2, True, False), (0.45, True, False), (0.6, False, True)):
        found = asked((1 - part) * d_b + part * d_s)
        assert (Limits().stops(found), Limits().asks(found)) == (stops, asks)
    found = asked(0.1 * d_b + 0.9 * d_s)
    assert not Limits().stops(found) and not Limits().asks(found)
    # as much is taken by chance, by something much larger
    own, loud = d_s - d_b, drawn(7, 10.0)
    loud -= (loud * own).sum() / own.square().sum() * own
    strong = asked(0.8 * d_b + 0.2 * d_s + loud)
    assert strong.retained == pytest.approx(0.2, abs=1e-3) and strong.against < AGAINST
    assert not Limits().stops(strong) and not Limits().asks(strong)
    # and by a style that damps all that a prompt says
    damped = asked(0.1 * d_s)
    assert damped.back < BACK and not Limits(0.9, 1.0).stops(damped)


@pytest.mark.parametrize("wrong", [(0.9, 0.5), (-0.1, 0.5), (0.5, 1.1), (math.nan, 0.5)])
def test_limits_that_are_none_are_refused(wrong):
    with pytest.raises(
        ValueError, match="it must be a finite number, at least 0|stop must be at most look"
    ):
        Limits(*wrong)


def test_the_short_form_is_four_pictures_and_two_prompts_of_each():
    asks = short_form(Moments(), [f"p{number}" for number in range(20)])
    assert [ask.level for ask in asks] == [0.9, 0.8, 0.7, 0.9]
    assert [ask.seed for ask in asks] == [1, 2, 1, 2]
    prompts = [text for ask in asks for text in ask.prompts]
    assert len(set(prompts)) == 8 and prompts[0] == "p0" and prompts[-1] == "p19"
    assert all(ask.of == ask.prompts[0] for ask in asks)
    assert short_form(Moments((0.5,), (7,)), ["x"]) == [Ask("x", 0.5, 7, ("x",))] * 4
    assert [ask.prompts for ask in short_form(Moments(), ["x", "y", "z"])] == [
        *(("x", "y"), ("z", "x"), ("y", "z"), ("x", "y")),
    ]
    assert spread([1, 2, 3], 5) == [1, 2, 3] and spread(list(range(101)), 3) == [0, 50, 100]


def test_a_file_has_its_own_moments_and_an_older_one_what_it_was_trained_at():
    own = Moments((0.6, 0.4), (3,), 256)
    assert moments_of({KEY: own.text()}, "x") == own
    assert moments_of({}, "x") == Moments()
    for said, side in (
        *(('{"resolution": 384}', 384), ('{"resolution": true}', 0), ('{"resolution": 1e9}', 0)),
        *(("[]", 0), ("", 0), ("{", 0), ('{"resolution": -8}', 0), ("[" * 10**5, 0)),
    ):
        assert moments_of({"msl.training": said}, "x") == Moments(resolution=side)
    assert moments_of({KEY: own.text(), "msl.training": '{"resolution": 384}'}, "x") == own


GOOD = {"levels": [0.9], "seeds": [1], "resolution": 0}
BROKEN = {
    **{"no JSON": "{", "a list": "[]", "a number": "1", "deep": "[" * 10**5, "nothing": ""},
    "twice": '{"levels": [0.9], "levels": [0.1], "seeds": [1], "resolution": 0}',
    "NaN": '{"levels": [NaN], "seeds": [1], "resolution": 0}',
    **{f"without {key}": json.dumps({**GOOD, key: None}) for key in GOOD},
    "levels": json.dumps(GOOD | {"levels": []}),
    "pure noise": json.dumps(GOOD | {"levels": [1.0]}),
    "no noise": json.dumps(GOOD | {"levels": [0]}),
    "a text": json.dumps(GOOD | {"levels": "0.9"}),
    "a seed": json.dumps(GOOD | {"seeds": [-1]}),
    "half a seed": json.dumps(GOOD | {"seeds": [1.5]}),
    "a seed that is none": json.dumps(GOOD | {"seeds": [True]}),
    "a large seed": json.dumps(GOOD | {"seeds": [2**63]}),
    "a large side": json.dumps(GOOD | {"resolution": 5000}),
    "a side that is none": json.dumps(GOOD | {"resolution": True}),
}


@pytest.mark.parametrize("text", BROKEN.values(), ids=BROKEN)
def test_moments_that_are_none_are_named_with_the_way_out(text):
    assert moments_of({KEY: json.dumps(GOOD)}, "x") == Moments((0.9,), (1,), 0)
    with pytest.raises(ModuleFileError, match=r"^my.safetensors: msl\.moments is .*Seal it again"):
        moments_of({KEY: text}, "my.safetensors")
