"""The training loop: every step is a function of (seed, step), so a killed run resumes exactly."""

import functools
import math
from collections.abc import Callable, Sequence

import torch
from comfy.model_management import InterruptProcessingException

from ...options.errors import PackError
from ...options.words import amount
from ..settings import Settings
from .adapters import Adapters
from .batch import Batch, LossOf
from .checkpoint import Checkpoint, Progress, State
from .optimizers import make_optimizer
from .processes import ALONE, Share


class TrainingError(PackError, RuntimeError):
    """Training can't go on; the message says at which step and what to change."""


class Cancelled(TrainingError):
    """Training was cancelled before it learned anything."""


def train(
    adapters: Adapters,
    buckets: Sequence[Sequence[int]],
    loss_of: LossOf,
    settings: Settings,
    checkpoint: Checkpoint | None = None,
    *,
    on_step: Callable[[Progress], bool] = lambda progress: True,
    after_update: Callable[[], None] = lambda: None,
    share: Share = ALONE,
    scaled: bool = False,
) -> Progress:
    """Train the adapters for `settings.steps` steps.

    `buckets` are numbers of pictures of one size each. A checkpoint that is there is gone on from;
    one of other data or settings is refused. `on_step` is called before the first step and after
    each; training ends early when it returns False (cancel). Nothing random has a state of its own:
    order, noise and dropout of a step are drawn from (seed, step), so a resumed run is the
    uninterrupted one. `after_update` is called after each optimizer step; `scaled` scales the loss
    for a network that computes in fp16 (Micikevicius et al. 2018).
    """
    optimizer = make_optimizer(adapters.parameters.values(), settings)
    device = next(iter(adapters.parameters.values())).device
    scaler = torch.amp.GradScaler(device.type, enabled=scaled)
    state = State(adapters, optimizer, scaler, settings)
    progress = checkpoint.restore(state) if checkpoint is not None else Progress()
    if len(set(share.gather(progress.step))) > 1:
        raise TrainingError(
            "The processes would resume from different steps. Put the output on a disk that all of"
            " them share."
        )
    if progress.step == 0:
        progress.cancelled = share.any(not on_step(progress))
    while progress.step < settings.steps and not progress.cancelled:
        try:
            progress.losses.append(_one_step(state, buckets, loss_of, progress.step, share))
        except InterruptProcessingException:
            # ComfyUI's layers raise it on Cancel: this step is not taken
            progress.cancelled = True
        else:
            after_update()
            progress.step += 1
            progress.cancelled = share.any(not on_step(progress))
        last = progress.cancelled or progress.step == settings.steps
        if checkpoint is not None and share.is_main and (last or checkpoint.is_due(progress.step)):
            checkpoint.store(state, progress)
    return progress


def batches_of(buckets: Sequence[Sequence[int]], settings: Settings, step: int) -> list[list[int]]:
    """The pictures of one optimizer step, `accumulate` batches of one size each.

    Every epoch is a seeded permutation of all pictures, cut into batches within each bucket; the
    last batch of a bucket is filled up from its start.
    """
    chosen = []
    per_epoch = sum(math.ceil(len(bucket) / settings.batch_size) for bucket in buckets)
    for place in range(step * settings.accumulate, (step + 1) * settings.accumulate):
        epoch, at = divmod(place, per_epoch)
        generator = generator_of(settings.seed, epoch, stream=1)
        batches = []
        for bucket in buckets:
            order = [bucket[i] for i in torch.randperm(len(bucket), generator=generator).tolist()]
            for start in range(0, len(order), settings.batch_size):
                batch = order[start : start + settings.batch_size]
                batches.append(
                    [
                        *batch,
                        *(order[i % len(order)] for i in range(settings.batch_size - len(batch))),
                    ]
                )
        chosen.append(batches[torch.randperm(len(batches), generator=generator)[at]])
    return chosen


def generator_of(seed: int, number: int, stream: int) -> torch.Generator:
    """A CPU generator for (seed, number, stream); streams keep order, noise and dropout apart."""
    mixed = (
        seed * 0x9E3779B97F4A7C15 + number * 0xBF58476D1CE4E5B9 + stream * 0x94D049BB133111EB
    ) % (1 << 63)
    return torch.Generator().manual_seed(mixed)


def _one_step(
    state: State, buckets: Sequence[Sequence[int]], loss_of: LossOf, step: int, share: Share
) -> dict[str, float]:
    """One optimizer step; the parts of its loss, each the mean over the step's batches."""
    settings, optimizer, scaler = state.settings, state.optimizer, state.scaler
    for group in optimizer.param_groups:
        group["lr"] = settings.rate_at(step)
    optimizer.zero_grad(set_to_none=True)
    parameters = list(state.adapters.parameters.values())
    parts = _gradients(state, buckets, loss_of, step, share)
    for value in parameters:
        value.grad = torch.zeros_like(value) if value.grad is None else value.grad
    share.mean([*(value.grad for value in parameters), *parts.values()])
    scaler.unscale_(optimizer)
    norm = torch.nn.utils.clip_grad_norm_(
        parameters, settings.clip_norm if settings.clip_norm > 0 else math.inf
    )
    losses = {name: part.item() for name, part in parts.items()}
    # A scaled gradient that overflowed is skipped by the scaler, which then scales less, but not
    # without end.
    skipped = scaler.is_enabled() and scaler.get_scale() >= 1.0
    if not (math.isfinite(sum(losses.values())) and (skipped or torch.isfinite(norm))):
        raise TrainingError(
            f"The loss of step {step + 1} is {sum(losses.values())} and its gradient {norm.item()}."
            f" The last checkpoint is kept. {_way_out(state)}"
        )
    scaler.step(optimizer)
    scaler.update()
    return losses


def _gradients(
    state: State, buckets: Sequence[Sequence[int]], loss_of: LossOf, step: int, share: Share
) -> dict[str, torch.Tensor]:
    """Leave the gradients of one step with the adapters; the parts of its loss."""
    settings = state.settings
    first = next(iter(state.adapters.parameters.values()))
    parts: dict[str, torch.Tensor] = {}
    with torch.random.fork_rng(devices=[first.device] if first.is_cuda else []):
        # for dropout
        torch.manual_seed(
            generator_of(settings.seed, step, stream=3 + 1000 * share.rank).initial_seed()
        )
        noise = generator_of(settings.seed, step, stream=2)
        for pictures in batches_of(buckets, settings, step):
            found = {
                name: part / settings.accumulate
                for name, part in loss_of(Batch(step, pictures, noise, share)).items()
            }
            state.scaler.scale(functools.reduce(torch.add, found.values())).backward()
            parts = {
                name: parts.get(name, 0.0) + part.detach().float() for name, part in found.items()
            }
    return parts


def _way_out(state: State) -> str:
    """What to change when a loss is not finite.

    How the base is held, what it computes in, else the rate or the data.
    """
    broken = state.adapters.broken_weights()
    if broken:
        name, dtype = next(iter(broken.items()))
        return (
            f"NaN or infinite values in {amount(len(broken), 'weight')} of the base, as it is"
            f" loaded (first: {name}, in {dtype}). Load the model in another dtype, such as bf16 or"
            " fp32, or use another file of it."
        )
    if state.scaler.is_enabled():
        return (
            "The network computes in fp16, whose largest number is 65504. Set precision to bf16 or"
            " fp32 before you lower the learning rate or look for broken pictures."
        )
    return "Lower the learning rate, or look for broken pictures among the data."
