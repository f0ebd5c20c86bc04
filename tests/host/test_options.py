"""The options table: both doors of a trainer are made from it and give a run the same settings."""

import argparse
import dataclasses
import re
import time

import pytest
from modular_safety_lora import commands, nodes
from modular_safety_lora.commands import train_safety, train_task
from modular_safety_lora.nodes.train_safety import TrainSafetyLora
from modular_safety_lora.nodes.train_task import TrainTaskLora
from modular_safety_lora.options.table import SAFETY, TASK, check, made, option, rows
from modular_safety_lora.training import targets
from modular_safety_lora.training.keeping import Keeping
from modular_safety_lora.training.objectives import Erasure
from modular_safety_lora.training.settings import KINDS, Settings

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
        shown, typed = ("", None) if row.lines else (row.default, row.default)
        assert (inputs[name].default, line[name]) == (shown, typed)
        assert inputs[name].tooltip == row.words
        ends = getattr(inputs[name], "min", None), getattr(inputs[name], "max", None)
        assert ends == row.ends, name
    kinds = [Settings, Keeping, *([Erasure] if trainer == SAFETY else [])]
    defaults = {name: inputs[name].default for name in rows(*kinds, of=trainer)}
    of_line = commands.flags.taken(argparse.Namespace(**line), *kinds)
    assert of_line == nodes.inputs.taken(defaults, *kinds) == [kind() for kind in kinds]


def test_what_only_one_trainer_has_is_not_at_the_others_door():
    assert "anchor_lambda" in rows(*KINDS, of=TASK) and "anchor_lambda" not in rows(
        *KINDS, of=SAFETY
    )
    assert "eta" in rows(*KINDS, of=SAFETY) and "eta" not in rows(*KINDS, of=TASK)


def test_prodigy_gets_its_own_rate_at_both_doors_and_a_small_one_is_refused():
    assert made(Settings, flags(TASK, "--optimizer", "prodigy")).learning_rate == 1.0
    assert made(Settings, {"optimizer": "prodigy", "learning_rate": 1e-4}).learning_rate == 1.0
    assert made(Settings, {"optimizer": "prodigy", "learning_rate": 0.5}).learning_rate == 0.5
    with pytest.raises(ValueError, match="Prodigy finds the step size itself"):
        made(Settings, {"optimizer": "prodigy", "learning_rate": 1e-3})


def test_alpha_zero_is_the_rank():
    assert (
        made(Settings, {"rank": 8}).adapter.alpha == 8.0
        and made(Settings, {"rank": 8, "alpha": 2.0}).adapter.alpha == 2.0
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
        ({"count": 0}, "count is 0; it must be a whole number, at least 1"),
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


NAMES = [f"input_blocks.{place}.1.transformer_blocks.0.attn1.to_q" for place in range(200)]


def test_a_pattern_of_exponential_time_ends_and_says_how_to_write_it(monkeypatch):
    pattern = r"^((\w|[._])+)+[^\w.]"
    monkeypatch.setattr(targets, "SECONDS", 0.2)
    began = time.monotonic()
    with pytest.raises(ValueError, match="took more than 0.2 s to match. Write it without"):
        targets.matching(NAMES, pattern)
    assert time.monotonic() - began < 2.0


def test_a_pattern_finds_what_it_found_and_one_that_is_none_is_an_error():
    for pattern in (r"attn1\.to_(q|k)", r"^input_blocks\.[12]\.", r"blocks\.1\d+", r"(?i)ATTN1$"):
        assert targets.matching(NAMES, pattern) == [
            name for name in NAMES if re.search(pattern, name)
        ]
    for pattern in ("(", "a{9999999999999}", "(" * 5000 + ")" * 5000):
        with pytest.raises(ValueError, match="nor a regular expression"):
            targets.matching(NAMES, pattern)
