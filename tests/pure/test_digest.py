"""Digests of values: told by what they hold, in any process and any order, or said to be untold."""

import dataclasses
import functools
import types
from pathlib import Path

import torch
from modular_safety_lora.host.digest import NOT_DIGESTED, Digest


def of(value) -> tuple[bytes, bool]:
    digest = Digest()
    return digest.of(value), bool(digest.untold)


def test_values_are_told_by_what_they_hold():
    class One:
        def act(self):
            return 1

    class Other:
        def act(self):
            return 2

    Other.__qualname__ = One.__qualname__
    held = types.SimpleNamespace(a=1)
    held.itself = held
    distinct = [
        None, 0, 1, 1.5, "1", b"1", (1,), {"a": 1}, {"a": 2}, {1, 2}, range(2), One(), Other(), One,
        held, torch.float16, torch.ones(2), torch.ones(2, dtype=torch.float16), torch.ones(2, 1),
        len, print, functools.partial(len, (1,)), One().act, Other().act,
    ]  # fmt: skip
    assert len({of(each)[0] for each in distinct}) == len(distinct)
    assert not any(of(each)[1] for each in distinct)
    assert of({"a": 1, "b": 2}) == of({"b": 2, "a": 1}) and of({"x", "y"}) == of({"y", "x"})
    assert of([1, 2]) != of([2, 1]) and of(torch.zeros(2)) != of(torch.tensor([0.0, -0.0]))
    for value in (torch.Generator(), iter([1]), (each for each in ())):
        assert of(value)[1] and of({"deep": [value]})[1]


def test_a_path_is_told_by_its_name_whoever_asked_for_its_hash():
    """A path keeps its hash, which is another one in every process."""
    asked = Path("a") / "b"
    hash(asked)
    assert of(asked) == of(Path("a/b")) != of(Path("a/c"))


def test_a_field_that_no_picture_depends_on_is_left_out():
    @dataclasses.dataclass
    class Held:
        told: int
        measured: object = dataclasses.field(default=None, metadata=NOT_DIGESTED)

    assert Digest().of(Held(1, [2])) == Digest().of(Held(1, [3])) != Digest().of(Held(2, [2]))
