"""The gate of what nodes read, and the words in a node's result when something was withheld."""

import asyncio
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from typing import Any, TypeAlias

import execution
import torch
from comfy_api.latest._input import VideoInput
from comfy_execution.utils import CurrentNodeContext
from torch.utils.weak import WeakIdKeyDictionary

from .keeper import CHANNELS, Keeper

Inputs: TypeAlias = Mapping[str, Any]
Words: TypeAlias = MutableMapping[Any, list[str]]  # by what flows from node to node
KEY = "withheld"  # of a node's result; other keys are what the frontend shows


def install(keeper: Keeper) -> Callable[[], None]:
    """From now on results name what was withheld, and with `inputs` what is read is looked at.

    Loaders are many, and anyone may bring another: so it is what comes out of a node that was given
    no picture and no latent. Returns what takes it away again.
    """
    original = execution.get_output_data
    words: Words = WeakIdKeyDictionary()

    @functools.wraps(original)
    async def get_output_data(
        prompt_id: str, unique_id: str, obj: Any, input_data_all: Inputs, *args: Any, **kwargs: Any
    ) -> tuple[Any, ...]:
        found = await original(prompt_id, unique_id, obj, input_data_all, *args, **kwargs)
        output, ui, has_subgraph, pending = found
        given = list(_values(input_data_all.values()))
        if keeper.wanted.inputs and not has_subgraph and not any(map(_is_picture, given)):
            if pending:  # what it gives is looked at, so it is waited for
                done = [await each if isinstance(each, asyncio.Task) else each for each in output]
                output, ui, has_subgraph = execution.get_output_from_returns(done, obj)
                pending = False
            with CurrentNodeContext(prompt_id, unique_id):
                output = [[_looked(keeper, each) for each in slot] for slot in output]
        said = keeper.notes(prompt_id, unique_id)
        before = [each for value in given if _carries(value) for each in words.get(value, ())]
        told = list(dict.fromkeys([*before, *said]))
        if told and not has_subgraph and not pending:
            for value in filter(_carries, _values(output)):
                words[value] = told
        if said or (told and getattr(obj, "OUTPUT_NODE", False)):
            ui = {**ui, KEY: [*ui.get(KEY, ()), *told]}
        return output, ui, has_subgraph, pending

    execution.get_output_data = get_output_data

    def taken_away() -> None:
        execution.get_output_data = original

    return taken_away


def _looked(keeper: Keeper, value: Any) -> Any:
    """A value that a node gives; pictures and masks (B, H, W) looked at."""
    if not isinstance(value, torch.Tensor) or not value.is_floating_point() or not value.numel():
        return value
    if value.ndim == 4 and value.shape[-1] in CHANNELS:
        return keeper.tensor(value, "input")
    if value.ndim == 3 and min(value.shape[1:]) > 1:
        return keeper.tensor(value[..., None], "input")[..., 0]
    return value


def _values(slots: Iterable[Any]) -> Iterator[Any]:
    """What lies in inputs or outputs; of a latent its tensor."""
    for slot in slots:
        for value in slot if isinstance(slot, list) else [slot]:
            yield value.get("samples") if isinstance(value, Mapping) else value


def _is_picture(value: Any) -> bool:
    """Whether it is a picture, a mask or a latent."""
    return isinstance(value, torch.Tensor) and value.ndim > 2


def _carries(value: Any) -> bool:
    """Whether it is what pictures flow on in."""
    return _is_picture(value) or isinstance(value, VideoInput)
