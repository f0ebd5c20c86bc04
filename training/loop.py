"""The training loop: every step is a function of (seed, step), so a run that was killed goes on as if it had not been."""

import json
import logging
import math
from collections.abc import Callable, Sequence
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


def train(
    adapters: Adapters,
    buckets: Sequence[Sequence[int]],
    loss_of: LossOf,
    settings: Settings,
    state: Path | None = None,
    save_every: int = 0,
    identity: str = "",
    on_step: Callable[[Progress], bool] = lambda progress: True,
) -> Progress:
    """Train the adapters for `settings.steps` steps; `buckets` are numbers of pictures of one size each.

    `state` is the file that keeps weights, optimizer and step: when it is there, training goes on from it; every
    `save_every` steps, and when `on_step` returns False (cancel), it is written; `identity` names the data, and a
    checkpoint of other data or settings is refused. Nothing random has a state of its own:
    order, noise and dropout of a step are drawn from (seed, step), so a resumed run is the uninterrupted one.
    """
    optimizer = torch.optim.AdamW(
        list(adapters.parameters.values()), lr=settings.learning_rate, weight_decay=settings.weight_decay
    )
    progress = (
        _restore(state, adapters, optimizer, _fixed(settings, identity))
        if state is not None and state.exists()
        else Progress()
    )
    while progress.step < settings.steps and not progress.cancelled:
        progress.losses.append(_one_step(adapters, optimizer, buckets, loss_of, settings, progress.step))
        progress.step += 1
        progress.cancelled = not on_step(progress)
        last = progress.cancelled or progress.step == settings.steps
        if state is not None and (last or (save_every and progress.step % save_every == 0)):
            _store(state, adapters, optimizer, _fixed(settings, identity), progress)
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


def _store(state: Path, adapters: Adapters, optimizer, fixed: str, progress: Progress) -> None:
    tensors = {f"weight.{name}": value.detach().cpu() for name, value in adapters.parameters.items()}
    for name, value in adapters.parameters.items():
        tensors |= {f"optimizer.{key}.{name}": part.detach().cpu() for key, part in optimizer.state[value].items()}
    about = {"step": str(progress.step), "losses": json.dumps(progress.losses), "settings": fixed}
    write_atomically(state, {name: value.contiguous().clone() for name, value in tensors.items()}, about)


def _restore(state: Path, adapters: Adapters, optimizer, fixed: str) -> Progress:
    try:
        with safe_open(str(state), framework="pt") as file:
            about = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    except SafetensorError as error:
        raise TrainingError(f"{state}: this checkpoint can't be read ({error}). Delete it to start anew.") from error
    if about.get("settings") != fixed:
        raise TrainingError(
            f"{state}: this checkpoint was made with other data or settings ({about.get('settings')}). Use the same to "
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
    logger.info("resuming at step %s from %s", about["step"], state)
    return Progress(int(about["step"]), json.loads(about["losses"]))


def _fixed(settings: Settings, identity: str) -> str:
    """The data and settings that must not change between a checkpoint and its resumption."""
    record = json.loads(settings.record())
    for free in ("versions", *(["steps"] if settings.schedule == "constant" else [])):
        record.pop(free)
    return json.dumps({**record, "data": identity}, sort_keys=True)
