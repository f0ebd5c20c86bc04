"""What the benchmarks share: turns, a stopwatch on a function, memory, processes of their own."""

import math
import mmap
import time
from types import SimpleNamespace

import pytest
from modular_safety_lora.lab.benchmarks import harness


def test_arms_take_turns_and_a_row_is_a_line_of_a_table(capsys):
    order = []
    arms = {name: (lambda name=name: order.append(name) or len(order)) for name in "ab"}
    assert harness.in_turns(arms, 3) == {"a": [2, 3, 6], "b": [1, 4, 5]}
    assert order == ["b", "a", "a", "b", "b", "a"]
    harness.head("what", "time")
    harness.row("x", 1)
    assert capsys.readouterr().out == "| what | time |\n| --- | --- |\n| x | 1 |\n"


def test_a_watched_function_is_given_back_whatever_happens():
    owner = SimpleNamespace(work=lambda value: 1 / value)
    plain = owner.work
    with harness.watched(owner, "work") as watch:
        assert owner.work(2) == 0.5
    assert watch.seconds > 0 and owner.work is plain
    with pytest.raises(ZeroDivisionError), harness.watched(owner, "work"):
        owner.work(0)
    assert owner.work is plain


def test_memory_is_the_most_that_was_held():
    # not by malloc, which may have freed memory at hand
    with harness.Peak() as peak, mmap.mmap(-1, 2**26) as held:
        for page in range(0, len(held), mmap.PAGESIZE):
            held[page] = 1
        time.sleep(0.05)
    assert 60 < peak.mb < 80


def test_a_function_in_a_process_of_its_own_gives_json_or_says_why_not():
    assert harness.alone(math.hypot, 3, 4, comfyui=False) == 5.0
    with pytest.raises(RuntimeError, match="math domain error"):
        harness.alone(math.sqrt, -1, comfyui=False)
