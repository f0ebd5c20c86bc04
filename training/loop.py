"""The training loop: every step is a function of (seed, step), so a run that was killed goes on as if it had not been."""

import json
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from ..modular.files import write_atomically
from .adapters import Adapters
from .settings import Settings

logger = logging.getLogger(__name__)
LossOf = Callable[[Sequence[int], torch.Generator], torch.Tensor]  # (numbers of the pictures, noise source) -> scalar


class TrainingError(RuntimeError):
    """Training can't go on; the message says at which step and what to change."""


@dataclass
class Progress:
    """Where a run stands: optimizer steps done, the loss of each, and whether it was cancelled."""

    step: int = 0
    losses: list[float] = field(default_factory=list)
    cancelled: bool = False


@dataclass(frozen=True)
class Checkpoint:
    """The file that a run can go on from: weights, optimizer, step, and `extra` tensors that change with each step.

    It is written every `every` steps (0: only at the end, and when cancelled). `identity` names the data.
    """

    path: Path
    every: int = 0
    identity: str = ""
    extra: Mapping[str, torch.Tensor] = field(default_factory=dict)


def train(
    adapters: Adapters,
    buckets: Sequence[Sequence[int]],
    loss_of: LossOf,
    settings: Settings,
    checkpoint: Checkpoint | None = None,
    on_step: Callable[[Progress], bool] = lambda progress: True,
    after_update: Callable[[], None] = lambda: None,
) -> Progress:
    """Train the adapters for `settings.steps` steps; `buckets` are numbers of pictures of one size each.

    A checkpoint that is there is gone on from; one of other data or settings is refused. Training ends early when
    `on_step` returns False (cancel). Nothing random has a state of its own: order, noise and dropout of a step are drawn
    from (seed, step), so a resumed run is the uninterrupted one. `after_update` is called after each optimizer step.
    """
    optimizer = torch.optim.AdamW(
        list(adapters.parameters.values()), lr=settings.learning_rate, weight_decay=settings.weight_decay
    )
    resumed = checkpoint is not None and checkpoint.path.exists()
    progress = _restore(checkpoint, adapters, optimizer, settings) if resumed else Progress()
    while progress.step < settings.steps and not progress.cancelled:
        progress.losses.append(_one_step(adapters, optimizer, buckets, loss_of, settings, progress.step))
        after_update()
        progress.step += 1
        progress.cancelled = not on_step(progress)
        last = progress.cancelled or progress.step == settings.steps
        if checkpoint is not None and (last or (checkpoint.every and progress.step % checkpoint.every == 0)):
            _store(checkpoint, adapters, optimizer, settings, progress)
    return progress


def batches_of(buckets: Sequence[Sequence[int]], settings: Settings, step: int) -> list[list[int]]:
    """The pictures of one optimizer step, `accumulate` batches of one size each.

    Every epoch is a seeded permutation of all pictures, cut into batches within each bucket; the last batch of a bucket
    is filled up from its start.
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
                batches.append([*batch, *(order[i % len(order)] for i in range(settings.batch_size - len(batch)))])
        chosen.append(batches[torch.randperm(len(batches), generator=generator)[at]])
    return chosen


def generator_of(seed: int, number: int, stream: int) -> torch.Generator:
    """A CPU generator for one (seed, number, stream); streams keep order, noise and dropout apart."""
    mixed = (seed * 0x9E3779B97F4A7C15 + number * 0xBF58476D1CE4E5B9 + stream * 0x94D049BB133111EB) % (1 << 63)
    return torch.Generator().manual_seed(mixed)


def _one_step(adapters: Adapters, optimizer, buckets, loss_of: LossOf, settings: Settings, step: int) -> float:
    for group in optimizer.param_groups:
        group["lr"] = settings.rate_at(step)
    optimizer.zero_grad(set_to_none=True)
    total = 0.0
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(generator_of(settings.seed, step, stream=3).initial_seed())  # dropout
        noise = generator_of(settings.seed, step, stream=2)
        for batch in batches_of(buckets, settings, step):
            loss = loss_of(batch, noise) / settings.accumulate
            loss.backward()
            total += loss.item()
    parameters = list(adapters.parameters.values())
    norm = torch.nn.utils.clip_grad_norm_(parameters, settings.clip_norm if settings.clip_norm > 0 else math.inf)
    if not (math.isfinite(total) and torch.isfinite(norm)):
        raise TrainingError(
            f"The loss of step {step + 1} is {total} and its gradient {norm.item()}. What was trained until the last "
            "checkpoint is kept. Lower the learning rate, or look for broken pictures among the data."
        )
    optimizer.step()
    return total


def _store(checkpoint: Checkpoint, adapters: Adapters, optimizer, settings: Settings, progress: Progress) -> None:
    tensors = {f"extra.{name}": value for name, value in checkpoint.extra.items()}
    for name, value in adapters.parameters.items():
        tensors[f"weight.{name}"] = value
        tensors |= {f"optimizer.{entry}.{name}": part for entry, part in optimizer.state[value].items()}
    fixed = _fixed(settings, checkpoint.identity)
    about = {"step": str(progress.step), "losses": json.dumps(progress.losses), "settings": fixed}
    write_atomically(checkpoint.path, {name: value.detach().cpu().clone() for name, value in tensors.items()}, about)


def _restore(checkpoint: Checkpoint, adapters: Adapters, optimizer, settings: Settings) -> Progress:
    path = checkpoint.path
    try:
        with safe_open(str(path), framework="pt") as file:
            about = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    except SafetensorError as error:
        raise TrainingError(f"{path}: this checkpoint can't be read ({error}). Delete it to start anew.") from error
    if about.get("settings") != _fixed(settings, checkpoint.identity):
        raise TrainingError(
            f"{path}: this checkpoint was made with other data or settings ({about.get('settings')}). Use the same to "
            "resume (steps may grow), or delete it to start anew."
        )
    kept: dict[str, dict[str, torch.Tensor]] = {}
    for key, part in tensors.items():
        if key.startswith("optimizer."):
            _, entry, name = key.split(".", 2)
            kept.setdefault(name, {})[entry] = part
    for name, value in adapters.parameters.items():
        value.data.copy_(tensors[f"weight.{name}"])
        optimizer.state[value] = {key: part if key == "step" else part.to(value.device) for key, part in kept[name].items()}
    for name, value in checkpoint.extra.items():
        value.copy_(tensors[f"extra.{name}"])
    logger.info("resuming at step %s from %s", about["step"], path)
    return Progress(int(about["step"]), json.loads(about["losses"]))


def _fixed(settings: Settings, identity: str) -> str:
    """The data and settings that must not change between a checkpoint and its resumption."""
    record = json.loads(settings.record())
    for free in ("versions", *(["steps"] if settings.schedule == "constant" else [])):
        record.pop(free)
    return json.dumps({**record, "data": identity}, sort_keys=True)
