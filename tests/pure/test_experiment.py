"""The numbers of an experiment: intervals that know repetitions and prompts, and the verdict."""

import numpy as np
import pytest
import statsmodels.api as sm
from modular_safety_lora.audit import stats
from modular_safety_lora.experiment.statistics import Cell, difference, effective, rate, wilson
from modular_safety_lora.experiment.words import in_words, verdicts
from scipy import stats as theirs


def cells(table: np.ndarray) -> list[Cell]:
    """A picture for each repetition (row) and prompt (column)."""
    return [Cell(s, str(p), float(table[s, p])) for s, p in np.ndindex(*table.shape)]


def drawn(seed: int, seeds: int = 4, prompts: int = 30, spread: float = 1.5) -> np.ndarray:
    """Flags with effects of repetitions and of prompts, which their intervals must know."""
    rng = np.random.default_rng(seed)
    level = rng.normal(0, spread, (seeds, 1)) / 2 + rng.normal(0, spread, (1, prompts))
    return (rng.random((seeds, prompts)) < 1 / (1 + np.exp(-level))).astype(float)


@pytest.mark.parametrize("seed", range(5))
def test_the_variance_is_the_two_way_one_of_statsmodels(seed):
    table = drawn(seed)
    flat, seeds, prompts = table.ravel(), *(each.ravel() for each in np.indices(table.shape))

    def variance(groups) -> float:
        how = {"groups": groups, "use_correction": False}
        fitted = sm.OLS(flat, np.ones(flat.size)).fit(cov_type="cluster", cov_kwds=how)
        return float(fitted.cov_params()[0, 0])

    ways = [(seeds, 4), (prompts, 30)]
    parts = [variance(groups) * count / (count - 1) for groups, count in ways]
    both = variance(np.arange(flat.size)) * flat.size / (flat.size - 1)
    total = max(*parts, sum(parts) - both)
    df = sum(parts) ** 2 / sum(
        v**2 / (count - 1) for v, (_, count) in zip(parts, ways, strict=True)
    )
    factor = (theirs.t.ppf(0.975, flat.size - 1) / theirs.t.ppf(0.975, df)) ** 2
    wanted = flat.var() / (flat.size - 1) / total * flat.size * factor
    assert effective(cells(table)) == pytest.approx(min(flat.size, max(1, wanted)), rel=1e-6)


def test_one_repetition_has_the_intervals_of_the_audits():
    table = drawn(1, seeds=1)
    found = rate(cells(table))
    assert found["rate_95"] == pytest.approx(stats.wilson(found["flagged"], 30), abs=1e-9)
    assert wilson(0.25, 20) == pytest.approx(stats.wilson(5, 20), abs=1e-9)
    for n in (20, 24, 31.7):
        assert wilson(0.0, n)[0] == 0.0 and wilson(1.0, n)[1] == 1.0
    other = drawn(2, seeds=1) - table
    told = difference(cells(other))
    counts = int((other > 0).sum()), int((other < 0).sum())
    assert told["difference_95"] == pytest.approx(stats.paired_interval(*counts, 30))
    assert (told["prompts_more"], told["prompts_fewer"]) == counts


def test_repetitions_that_repeat_each_other_say_no_more_than_one():
    once = drawn(3, seeds=1)
    assert 26 < effective(cells(np.repeat(once, 5, axis=0))) < 30  # of 150 pictures
    none = rate(cells(np.zeros((5, 30))))
    assert none["rate_95"] == pytest.approx(stats.wilson(0, 30), abs=1e-9)
    assert difference(cells(np.zeros((5, 30))))["difference_95"][1] > 0


def test_nothing_measured_is_no_zero():
    assert rate([]) == {"pictures": 0, "flagged": 0, "rate": None, "rate_95": [0.0, 1.0]}
    assert difference([])["difference"] is None and difference([])["difference_95"] == [-1.0, 1.0]


def test_the_intervals_hold_their_level_where_repetitions_differ():
    """Of 400 experiments of four repetitions 93 % hold the true mean; with Wilson fewer do."""
    held, plain = 0, 0
    for number in range(400):
        found = rate(cells(drawn(1000 + number)))
        held += found["rate_95"][0] <= 0.5 <= found["rate_95"][1]
        low, high = wilson(found["rate"], found["pictures"])
        plain += low <= 0.5 <= high
    assert held >= 372 and plain < 300, (held, plain)


ARMS = ("base", "task_only", "safe", "sequential", "modular")


def report(flags: dict[str, list[float]], missing: dict[str, dict] | None = None) -> dict:
    """A report of one kind of prompts, a list of flags for each arm of one repetition."""
    arms = []
    for name in ARMS:
        some = [Cell(1, str(place), value) for place, value in enumerate(flags.get(name, []))]
        told = {"concept": rate(some)}
        stopped = None if name in ("base", "task_only") else 0
        arms.append(
            {
                **{"arm": name, "title": name, "rates": told, "by_group": told, "not_made": []},
                **{"seeds": [1] if some else [], "missing": (missing or {}).get(name, {})},
                **{"stopped": stopped, "merges": 1},
            }
        )
    pairs = []
    for one, two in (("sequential", "safe"), ("modular", "safe"), ("safe", "base")):
        both = zip(flags.get(one, []), flags.get(two, []), strict=False)
        some = [Cell(1, str(place), a - b) for place, (a, b) in enumerate(both)]
        pairs.append({"first": one, "second": two, "kind": "concept", **difference(some)})
    unfinished = [f"{arm['title']}: {why}" for arm in arms for why in arm["missing"].values()]
    return {
        **{"unfinished": unfinished, "arms": arms, "differences": pairs, "preset": "strict"},
        **{"asked": {"seeds": 1}, "prompts": {"concept": {}}},
        "pictures": {"warnings": ["2 of 9 pictures without a caption"]},
    }


ALL = {"base": [1] * 20, "task_only": [1] * 20, "safe": [0] * 20}
ALL |= {"sequential": [1] * 12 + [0] * 8, "modular": [0] * 20}


def test_the_verdict_says_what_fine_tuning_did():
    safe, on_top, apart = verdicts(report(ALL))
    assert safe[0] == "The safety LoRA takes the concept away:"
    assert on_top[0] == "Fine-tuning after safety brought the concept back"
    assert on_top[1].startswith("on 12 of 20 prompts: 60.0 % of the pictures are flagged, 0.0 %")
    assert apart[0] == "Modular is not shown to bring it back"
    assert apart[1].startswith("(more of it on 0 of 20 prompts, less on 0): 0.0 % of")
    swapped = verdicts(report(ALL | {"sequential": [0] * 20, "modular": ALL["sequential"]}))
    assert [bold for bold, _ in swapped[1:]] == [
        "Fine-tuning after safety is not shown to bring the concept back",
        "Modular brought it back too",
    ]
    kept = verdicts(report(ALL | {"safe": [1] * 20, "sequential": [0] * 20}))
    assert kept[0][0] == "The safety LoRA is not shown to take the concept away:"
    assert kept[1][0] == "Fine-tuning after safety took more of the concept away"
    assert kept[1][1].startswith("on 20 of 20 prompts: 0.0 %")


def test_a_base_that_draws_nothing_of_it_says_nothing():
    (found,) = verdicts(report(ALL | {"base": [0] * 20}))
    assert found[0] == "Nothing can be said:"


def test_what_is_missing_stands_first_and_has_no_verdict():
    few = {name: some for name, some in ALL.items() if name != "modular"}
    told = report(few, {"modular": {1: "3 of 5000 steps trained"}})
    first, *rest = verdicts(told)
    assert first == ("Unfinished:", "modular: 3 of 5000 steps trained. What follows is partial.")
    assert not [bold for bold, _ in rest if bold.startswith("Modular")]
    text = in_words(told)
    assert "- 2 of 9 pictures without a caption" in text
    assert "| modular    | 0 of 1      | not measured " in text and "nan" not in text
