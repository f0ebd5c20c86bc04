"""The options table: both doors of a trainer are made from it and give a run the same settings."""

import argparse
import dataclasses

import pytest
from modular_safety_lora.commands import train_safety, train_task
from modular_safety_lora.nodes.train_safety import TrainSafetyLora
from modular_safety_lora.nodes.train_task import TrainTaskLora
from modular_safety_lora.training.keeping import Keeping
from modular_safety_lora.training.options import SAFETY, TASK, check, option, rows, values_of
from modular_safety_lora.training.settings import KINDS, Erasure, Settings, settings_of

DOORS = {TASK: (TrainTaskLora, train_task), SAFETY: (TrainSafetyLora, train_safety)}
ASKED = {
    TASK: ["--checkpoint", "c", "--output", "o.safetensors", "--data", "d"],
    SAFETY: ["--checkpoint", "c", "--output", "o.safetensors"],
}


def flags(trainer: str, *given: str) -> dict:
    parser = argparse.ArgumentParser()
    DOORS[trainer][1].options(parser)
    return vars(parser.parse_args([*ASKED[trainer], *given]))


@pytest.mark.parametrize("trainer", DOORS)
def test_node_and_command_line_have_every_option_with_the_same_default(trainer):
    inputs = {each.id: each for each in DOORS[trainer][0].GET_SCHEMA().inputs}
    table, line = rows(*KINDS, of=trainer), flags(trainer)
    assert table.keys() <= inputs.keys() and table.keys() <= line.keys()
    for name, row in table.items():
        assert (
            inputs[name].default == line[name] == row.default and inputs[name].tooltip == row.words
        )
        assert (getattr(inputs[name], "min", None), getattr(inputs[name], "max", None)) == (
            row.low,
            row.high,
        ), name
    for kind in (Keeping, *([Erasure] if trainer == SAFETY else [])):
        assert kind(**values_of(kind, line)) == kind()
    assert settings_of(line) == settings_of(
        {name: each.default for name, each in inputs.items() if name in table}
    )
    assert settings_of(line) == Settings()


def test_what_only_one_trainer_has_is_not_at_the_others_door():
    assert "anchor_lambda" in rows(*KINDS, of=TASK) and "anchor_lambda" not in rows(
        *KINDS, of=SAFETY
    )
    assert "eta" in rows(*KINDS, of=SAFETY) and "eta" not in rows(*KINDS, of=TASK)


def test_prodigy_gets_its_own_rate_at_both_doors_and_a_small_one_is_refused():
    assert settings_of(flags(TASK, "--optimizer", "prodigy")).learning_rate == 1.0
    assert settings_of({"optimizer": "prodigy", "learning_rate": 1e-4}).learning_rate == 1.0
    assert settings_of({"optimizer": "prodigy", "learning_rate": 0.5}).learning_rate == 0.5
    with pytest.raises(ValueError, match="Prodigy finds the step size itself"):
        settings_of({"optimizer": "prodigy", "learning_rate": 1e-3})


def test_alpha_zero_is_the_rank():
    assert (
        settings_of({"rank": 8}).adapter.alpha == 8.0
        and settings_of({"rank": 8, "alpha": 2.0}).adapter.alpha == 2.0
    )


@dataclasses.dataclass(frozen=True)
class Made:
    count: int = option(1, "A count.", low=1, high=9)
    share: float = option(0.5, "A share.", low=0.0, name="part")
    way: str = option("a", "A way.", choices=("a", "b"))
    open_way: str = option("a", "A way, or another.", choices=("a", "b"), other="or a word")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"count": 0}, "count is 0; it must be a finite number, at least 1"),
        ({"share": float("nan")}, "part is nan"),
        ({"share": -0.1}, "part is -0.1"),
        ({"way": "c"}, "way is 'c'; it must be one of a, b"),
        ({"count": 10**9}, "count is 1000000000; .* at most 9"),
        ({"share": float("inf")}, "part is inf"),
        ({"open_way": "c", "share": 1e9}, None),
    ],
)
def test_a_value_out_of_its_row_is_refused_by_its_name(changed, message):
    if message is None:
        check(Made(**changed))
    else:
        with pytest.raises(ValueError, match=message):
            check(Made(**changed))
