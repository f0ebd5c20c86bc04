"""Which weights a LoRA may change: SalUn's saliency mask (Fan et al. 2023, arXiv 2310.12508).

    W = W0 + m * dW,  m = 1 where |dl/dW| at W0 is among the largest, and 0 elsewhere

l is the loss that forgets; there the larger half of all weights may change. A LoRA's change B A has
no weight of its own to hold still, so that here m is of whole rows and columns of each layer,

    dW = (m_rows * B) (A * m_columns),

which leaves it a LoRA of its rank. Those with the largest sums of squared gradients may change, of
rows and of columns the square root of the share of weights. l is the method's own loss, on pictures
of several steps that the base half-made; their gradients' squares are added, not the gradients, so
that no more than one layer's is held at a time.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch.nn.grad import conv2d_weight

from ...host.layers import is_linear
from ..settings import Settings
from .adapters import NAME, Adapters
from .batch import Batch, LossOf
from .loop import TrainingError, batches_of, generator_of
from .processes import ALONE, Share

Found = dict[str, tuple[torch.Tensor, torch.Tensor]]  # by layer: of its rows, of its columns
Losses = Sequence[Callable[[], torch.Tensor]]
HALVES = ("lora_A", "lora_B")
PASSES = 8  # batches that it is told by
SCALES = (2.0**16, 2.0**10, 2.0**4, 1.0)  # of a loss in fp16, where small gradients are lost


def losses_of(loss_of: LossOf, buckets: Sequence[Sequence[int]], settings: Settings) -> Losses:
    """The loss of each of the first batches, with noise of its own, for `narrow` to take.

    What is retained has no part in it: nothing has moved yet.
    """

    def loss(number: int) -> torch.Tensor:
        noise = generator_of(settings.seed, number, stream=4)
        pictures = batches_of(buckets, settings, number)[0]
        parts = loss_of(Batch(number, pictures, noise))
        return functools.reduce(torch.add, parts.values())

    return [functools.partial(loss, number) for number in range(PASSES)]


def narrow(
    adapters: Adapters,
    losses: Losses,
    share: float,
    processes: Share = ALONE,
    *,
    scaled: bool = False,
) -> dict[str, torch.Tensor]:
    """Let untrained adapters change a share of their layers' weights alone, from now on.

    `losses` are computed one after another. All processes take the main one's choice. Gives the
    masks by a name for a checkpoint; what is written into them holds from then on. Raises
    TrainingError where a gradient is not finite, or there is none.
    """
    masks: dict[str, torch.Tensor] = {}
    found = _finite(adapters, losses, SCALES if scaled else SCALES[-1:])
    for layer, (rows, columns) in processes.gather(found)[0].items():
        for half, values, at in zip(HALVES, (columns, rows), (1, 0), strict=True):
            name = f"{layer}.{half}.{NAME}.weight"
            parameter = adapters.parameters[name]
            shape = [1] * parameter.ndim
            shape[at] = -1
            mask = _largest(values, share).reshape(shape).to(parameter.device)
            parameter.data.mul_(mask)
            parameter.register_hook(functools.partial(torch.mul, mask))
            masks[f"saliency.{name}"] = mask
    return masks


def saliency(adapters: Adapters, losses: Losses, scale: float = 1.0) -> Found:
    """(dl/dW)^2 summed over each row (out,) and column (in,) of every layer's weight, and losses.

    float64, on the CPU; of a convolution over its kernel too. It is taken of what goes into and
    comes back to a layer: the weight itself, however it is held, has no gradient.
    """
    found: Found = {}
    for layer in adapters.layers:
        down, up = (adapters.parameters[f"{layer}.{half}.{NAME}.weight"] for half in HALVES)
        found[layer] = _zeros(len(up)), _zeros(down.shape[1])
    parameters = list(adapters.parameters.values())
    with _noting(adapters, found):
        for loss in losses:
            torch.autograd.grad(scale * loss(), parameters, allow_unused=True)
    return found


def _finite(adapters: Adapters, losses: Losses, scales: Iterable[float]) -> Found:
    for scale in scales:
        found = saliency(adapters, losses, scale)
        sizes = [rows.sum().item() for rows, _ in found.values()]
        if sizes and torch.isfinite(torch.tensor(sizes)).all() and any(sizes):
            return found
    raise TrainingError(
        "The saliency of the weights can't be told: the gradient of the loss at the base's weights"
        " is zero or not finite. Set saliency to 1, or load the model in bf16 or fp32."
    )


@contextlib.contextmanager
def _noting(adapters: Adapters, found: Found) -> Iterator[None]:
    """Add what the layers' weights would get as gradients to `found`, for a block."""

    def note(layer: str, module: Any, given: tuple[torch.Tensor, ...], result: torch.Tensor) -> Any:
        def add(into: torch.Tensor, slope: torch.Tensor) -> None:
            gradient = _gradient(module.get_base_layer(), into.float(), slope.float())
            for total, dim in zip(found[layer], (1, 0), strict=True):
                total += gradient.norm(dim=dim).cpu().double().square()

        return _Noted.apply(result, given[0], add)

    with contextlib.ExitStack() as stack:
        for layer in adapters.layers:
            module = adapters.tuner.model.get_submodule(layer)
            hook = module.register_forward_hook(functools.partial(note, layer))
            stack.callback(hook.remove)
        yield


class _Noted(torch.autograd.Function):
    """A layer's result as it is; on the way back what went into the layer is noted with its slope.

    Autograd keeps that input as it keeps all else: copied where it is written over, or not at all
    and computed again.
    """

    @staticmethod
    def forward(ctx: Any, result: torch.Tensor, into: torch.Tensor, add: Any) -> torch.Tensor:
        ctx.save_for_backward(into)
        ctx.add = add
        return result.clone()

    @staticmethod
    def backward(ctx: Any, slope: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        ctx.add(*ctx.saved_tensors, slope)
        return slope, None, None


def _gradient(layer: Any, into: torch.Tensor, slope: torch.Tensor) -> torch.Tensor:
    """A weight's gradient (out, in); of a convolution its size over the kernel."""
    if is_linear(layer):
        return slope.flatten(0, -2).T @ into.flatten(0, -2)
    shape = layer.out_channels, layer.in_channels, *layer.kernel_size
    how = layer.stride, layer.padding, layer.dilation
    kernel: torch.Tensor = conv2d_weight(into, shape, slope, *how)
    return kernel.flatten(2).norm(dim=2)


def _largest(values: torch.Tensor, share: float) -> torch.Tensor:
    """1 for the largest of some values, if they are above 0, and 0 for the others, float32."""
    chosen = torch.zeros(len(values))
    chosen[values.topk(max(1, round(share**0.5 * len(values)))).indices] = 1.0
    return chosen * (values > 0)


def _zeros(size: int) -> torch.Tensor:
    return torch.zeros(size, dtype=torch.float64)
