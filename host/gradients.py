"""Gradients through the host's networks, which write over what the way back needs.

Blocks of Flux, LTXV and others add to their inputs in place. Autograd refuses that, and where it
can't see it, under gradient checkpointing, it gives wrong gradients. Here what is written over is
copied first; the network computes what it always does.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch.autograd.graph import allow_mutation_on_saved_tensors, saved_tensors_hooks
from torch.utils.checkpoint import checkpoint

from ..options.errors import PackError

HALF = 2.0**12  # of the loss of a network that computes in fp16, whose small gradients would be 0
IN_PLACE = "modified by an inplace operation"
# as torch says that an operation has no way back
NO_WAY = ("does not require grad", "is not implemented", "no autograd formula")


def go_back(output: Callable[[], torch.Tensor], parameters: Sequence[torch.Tensor]) -> None:
    """Take gradients of a network's output, once. Raises NoGradient where there is none at all."""
    try:
        result = output()
        if not result.requires_grad:
            raise NoGradient("no gradient reaches a layer that trains")
        torch.autograd.grad(result.float().square().sum(), parameters, allow_unused=True)
    except RuntimeError as error:
        if any(words in str(error) for words in NO_WAY):
            raise NoGradient(str(error).splitlines()[0]) from error
        raise


def writes_over(output: Callable[[], torch.Tensor], parameters: Sequence[torch.Tensor]) -> bool:
    """Whether a network writes over what its output's gradients need. Raises NoGradient."""
    try:
        go_back(output, parameters)
    except RuntimeError as error:
        if IN_PLACE in str(error):
            return True
        raise
    return False


class NoGradient(PackError, ValueError):
    """Autograd does not go through a network of the host."""


@contextlib.contextmanager
def recomputing(network: torch.nn.Module) -> Iterator[None]:
    """Gradient checkpointing within a `with` block.

    Each block of the network keeps its input alone, and runs again backwards. It runs on copies of
    its inputs, and what it saves on the second run, but for weights, is copied too: a network may
    write over what it needs, and whether it does can't be seen without keeping everything.
    """
    blocks = list(_blocks(network))
    own = [vars(block).get("forward") for block in blocks]
    for block in blocks:
        forward = functools.partial(_on_copies, block.forward)
        contexts = functools.partial(_contexts, block)
        block.forward = functools.partial(
            checkpoint, forward, use_reentrant=False, context_fn=contexts
        )
    try:
        yield
    finally:
        for block, before in zip(blocks, own, strict=True):
            if before is None:
                del block.forward
            else:
                block.forward = before


@contextlib.contextmanager
def still(*networks: torch.nn.Module) -> Iterator[None]:
    """A block in which no weight of these networks takes a gradient; their flags come back."""
    weights = [each for network in networks for each in network.parameters()]
    flags = [each.requires_grad for each in weights]
    for each in weights:
        each.requires_grad_(False)
    try:
        yield
    finally:
        for each, flag in zip(weights, flags, strict=True):
            each.requires_grad_(flag)


def kept(copied: bool) -> contextlib.AbstractContextManager[object]:
    """A block whose forward and backward passes may write over what is saved between them."""
    return allow_mutation_on_saved_tensors() if copied else contextlib.nullcontext()


def _on_copies(forward: Callable[..., object], *args: object, **kwargs: object) -> object:
    def own(value: object) -> object:
        return value.clone() if isinstance(value, torch.Tensor) else value

    return forward(*map(own, args), **{name: own(value) for name, value in kwargs.items()})


def _contexts(block: torch.nn.Module) -> tuple[Any, Any]:
    """For the first run of a block, and for its second, whose saved tensors are wanted."""
    return contextlib.nullcontext(), _copying(block)


@contextlib.contextmanager
def _copying(block: torch.nn.Module) -> Iterator[None]:
    """Within checkpointing's own hooks: what they keep is a copy, unless it is a weight.

    Weights are where they are now: between two steps they may have been moved. Torch has no public
    name for the hooks that are in force.
    """
    weights = {each.data_ptr() for each in block.parameters()}
    keep, fetch = torch._C._autograd._top_saved_tensors_default_hooks(True)

    def copied(tensor: torch.Tensor) -> object:
        return keep(tensor if tensor.data_ptr() in weights else tensor.clone())

    with saved_tensors_hooks(copied, fetch):
        yield


def _blocks(module: torch.nn.Module) -> Iterator[torch.nn.Module]:
    """The transformer and residual blocks: the largest parts that are called as a whole."""
    for child in module.children():
        if isinstance(child, torch.nn.ModuleList | torch.nn.ModuleDict | torch.nn.Sequential):
            yield from _blocks(child)
        elif next(child.children(), None) is not None:
            yield child
