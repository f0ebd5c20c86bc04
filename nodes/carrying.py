"""Verdicts travel with pictures: what stock nodes save has them in its metadata.

ComfyUI gives every node that saves one and the same `extra_pnginfo`, and none to clients of the API
that send none. So a node that is about to save is given its own, with the record of the pictures
that flow into it: known by their pixels, whichever audit saw them, in this prompt or one before.
"""

import functools
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import execution
import torch
from comfy_api.latest import io
from comfy_execution.utils import CurrentNodeContext

from ..audit.columns import counted
from ..audit.detectors.interface import to_uint8
from ..audit.opinion import Opinion
from ..provenance.record import (
    KEY,
    PASSED,
    Look,
    Noted,
    Record,
    Rules,
    looks,
    pixels_sha256,
    record,
)
from .made_by import about_pictures

CHANNELS = (1, 3, 4)
PNGINFO = "EXTRA_PNGINFO"
_pool = ThreadPoolExecutor(4, "verdicts")  # starts no thread before its first task


class _Held:
    """Whether nodes that save are given records, and of every picture or of those audited alone."""

    always = False
    taken_away: Callable[[], None] | None = None


def on_wish() -> None:
    """From now on what an audit was asked to write goes into files; other pictures have none."""
    if _Held.taken_away is None:
        _Held.taken_away = _install()


def always() -> Callable[[], None]:
    """Every picture that is saved has a record, even that nobody looked; returns what ends it."""
    on_wish()
    _Held.always = True
    return end


def end() -> None:
    """Nothing goes into files any more."""
    taken_away, _Held.taken_away, _Held.always = _Held.taken_away, None, False
    if taken_away is not None:
        taken_away()


def carry(
    by: str,
    images: Iterable[torch.Tensor],
    results: Iterable[Mapping[str, Any]],
    opinion: Opinion,
    action: str,
) -> None:
    """Keep an audit's results for the files of its pictures, as its action left them."""
    on_wish()
    found = zip(digests(images), results, strict=True)
    looks.keep(
        Rules.of(by, opinion.preset, opinion.sha256),
        [
            Look(
                sha256=digest,
                flagged=result["flagged"],
                done=action if result["flagged"] else PASSED,
                counts=dict(Counter(each["class"] for each in counted(result))),
            )
            for digest, result in found
        ],
    )


def noted(images: Iterable[torch.Tensor]) -> list[tuple[Noted, ...]]:
    """What audits of this process found of pictures (H, W, C), float, as they are now."""
    return [looks.of(each) if each else () for each in digests(images)]


def digests(images: Iterable[torch.Tensor]) -> list[str]:
    """The digests of the pixels that a file of each has; empty where no file can have them."""
    return list(_pool.map(_digest, images))


def record_of(found: Iterable[tuple[Noted, ...]]) -> Record:
    """The record of pictures that flow into the node that runs now."""
    about = about_pictures()
    return record(found, about["models"], about["safety_lora"])


def _digest(image: torch.Tensor) -> str:
    try:
        return pixels_sha256(to_uint8(image.float().numpy(force=True)))
    except ValueError:  # NaN, or no picture: nobody looked at it
        return ""


def _install() -> Callable[[], None]:
    original, holds = execution.get_output_data, True

    @functools.wraps(original)
    async def get_output_data(
        prompt_id: str, unique_id: str, obj: Any, input_data_all: Mapping, *args: Any, **kwargs: Any
    ) -> tuple[Any, ...]:
        saves = holds and getattr(obj, "OUTPUT_NODE", False) and _wants(obj, kwargs)
        if saves and (pictures := _pictures(input_data_all)):
            found = noted(pictures)
            if _Held.always or any(found):
                with CurrentNodeContext(prompt_id, unique_id):
                    told = record_of(found).plain()
                input_data_all, kwargs = _with(told, obj, input_data_all, kwargs)
        return await original(prompt_id, unique_id, obj, input_data_all, *args, **kwargs)

    execution.get_output_data = get_output_data

    def taken_away() -> None:
        nonlocal holds
        holds = False  # another one may stand around it
        if execution.get_output_data is get_output_data:
            execution.get_output_data = original

    return taken_away


def _pictures(inputs: Mapping[str, Any]) -> list[torch.Tensor]:
    return [
        image
        for values in inputs.values()
        for value in values
        if isinstance(value, torch.Tensor) and value.ndim == 4 and value.shape[-1] in CHANNELS
        for image in value
    ]


def _hidden(obj: Any) -> list[str]:
    """The inputs under which a node of the first API gets what it writes."""
    return [name for name, kind in obj.INPUT_TYPES().get("hidden", {}).items() if kind == PNGINFO]


def _given(kwargs: Mapping[str, Any]) -> Mapping[Any, Any]:
    """The hidden inputs of a node of the newer API."""
    return (kwargs.get("v3_data") or {}).get("hidden_inputs") or {}


def _wants(obj: Any, kwargs: Mapping[str, Any]) -> bool:
    return io.Hidden.extra_pnginfo in _given(kwargs) or bool(_hidden(obj))


def _with(
    told: Mapping[str, Any], obj: Any, inputs: Mapping[str, Any], kwargs: Mapping[str, Any]
) -> tuple[Mapping[str, Any], dict[str, Any]]:
    """The inputs of a node that saves, with a record beside what else it writes."""
    given = _given(kwargs)
    if io.Hidden.extra_pnginfo in given:
        more = {**(given[io.Hidden.extra_pnginfo] or {}), KEY: told}
        data = {**kwargs["v3_data"], "hidden_inputs": {**given, io.Hidden.extra_pnginfo: more}}
        return inputs, {**kwargs, "v3_data": data}
    before = {name: (inputs.get(name) or [None])[0] or {} for name in _hidden(obj)}
    own = {name: [{**each, KEY: told}] for name, each in before.items()}
    return {**inputs, **own}, dict(kwargs)
