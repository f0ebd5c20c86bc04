"""The layers that a prompt enters by, and the sums over its tokens that a formula is made of."""

from collections.abc import Sequence
from dataclasses import dataclass

import comfy.model_management
import torch
from comfy.model_patcher import ModelPatcher

from ...host.comfy_types import Conditioning
from ...host.denoiser import Denoiser
from ...host.readers import read, text_readers
from ...host.weights import base_name, loaded_weight
from ..objectives.closed_form import Sums
from ..targets import LEFT_OUT
from .aligning import beside
from .job import Computed
from .loop import TrainingError

NETWORK = "diffusion_model."  # before a layer's name, in a MODEL's weights
DOUBLES, BYTES = 7, 8  # (C, C) each: the sums, a map and what it is computed with


@dataclass(frozen=True)
class Group:
    """Layers that read one input, what they get of the prompts, and which of its numbers are used.

    `filled` (C,) are the numbers that are not zero in every token; the sums are of these alone.
    """

    layers: Sequence[str]
    sums: Sums
    filled: torch.Tensor


def readers_of(denoiser: Denoiser, kind: Computed) -> list[str]:
    """The layers that a prompt enters by. Raises ValueError where they are not all linear."""
    found = text_readers(denoiser, kind.pairs[0][0], kind.kept[-1])
    layers = [name for name in found.layers if not name.startswith(LEFT_OUT)]
    if found.past or not layers:
        where = f" (by {found.past[0]})" if found.past else ""
        raise ValueError(
            f"The method {kind.method.name} edits the linear layers that read the prompt, and in"
            f" {type(denoiser.base).__name__} models it enters past them too{where}. Choose another"
            " method, such as esd-x, or seal a LoRA from another tool."
        )
    return layers


def groups_of(
    denoiser: Denoiser, patcher: ModelPatcher, layers: Sequence[str], kind: Computed
) -> list[Group]:
    """The layers by what they read, and the sums of it, on the CPU.

    Raises TrainingError where memory does not suffice, ValueError for numbers that are not finite.
    """
    together: list[tuple[torch.Tensor, list[str]]] = []
    for name, rows in read(denoiser, layers, kind.pairs[0][0]).items():
        for seen, members in together:
            if seen.shape == rows.shape and torch.equal(seen, rows):
                members.append(name)
                break
        else:
            together.append((rows, [name]))
    _check_memory([rows.shape[1] for rows, _ in together])
    first = [members[0] for _, members in together]

    def tokens(conditioning: Conditioning) -> list[torch.Tensor]:
        rows = read(denoiser, first, conditioning)
        return [rows[name].to("cpu", torch.float64) for name in first]

    sums = [_Growing(rows.shape[1]) for rows, _ in together]
    for concept, instead in kind.pairs:
        for each, rows, others in zip(sums, tokens(concept), tokens(instead), strict=True):
            each.add(rows, others[beside(rows, others)])
    for kept in kind.kept:
        for each, rows in zip(sums, tokens(kept), strict=True):
            each.kept += rows.T @ rows
    return [
        _group(patcher, members, each, kind.preserve)
        for (_, members), each in zip(together, sums, strict=True)
    ]


class _Growing:
    """The sums of a group while prompts are read, over all numbers of the input."""

    def __init__(self, size: int):
        made = (torch.zeros(size, size, dtype=torch.float64) for _ in range(4))
        self.concept, self.instead, self.target, self.kept = made
        self.prompts = 0

    def add(self, rows: torch.Tensor, instead: torch.Tensor) -> None:
        self.concept += rows.T @ rows
        self.instead += instead.T @ rows
        self.target += instead.T @ instead
        self.prompts += 1


def _group(patcher: ModelPatcher, layers: Sequence[str], found: _Growing, preserve: float) -> Group:
    told = found.concept, found.instead, found.target, found.kept
    if not all(each.isfinite().all() for each in told):
        raise ValueError(
            f"The text encoder of this {base_name(patcher)} gives numbers that are not finite, of"
            f" which nothing can be computed (read by {layers[0]}). Load it in another dtype, such"
            " as bf16 or fp32."
        )
    filled = (found.concept + found.target + found.kept).diagonal() > 0
    weights = torch.zeros(int(filled.sum()), int(filled.sum()), dtype=torch.float64)
    for layer in layers:
        w0 = weight_of(patcher, layer).double()[:, filled]
        weights += w0.T @ w0
    used = [each[filled][:, filled] for each in told]
    sums = Sums(used[0], used[1], used[2], used[3], weights, found.prompts, preserve)
    return Group(layers, sums, filled)


def weight_of(patcher: ModelPatcher, layer: str) -> torch.Tensor:
    """A layer's loaded weight (out, in), float32 on the CPU."""
    return loaded_weight(patcher, f"{NETWORK}{layer}.weight").cpu()


def _check_memory(sizes: Sequence[int]) -> None:
    needed = DOUBLES * BYTES * sum(size**2 for size in sizes)
    there: int = comfy.model_management.get_free_memory(torch.device("cpu"))
    if needed > there:
        raise TrainingError(
            f"This method needs {needed / 2**30:.1f} GB of main memory for this model;"
            f" {there / 2**30:.1f} GB are free. Close other programs, or choose another method."
        )
