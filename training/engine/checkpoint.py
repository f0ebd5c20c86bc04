"""The safetensors file that a run resumes from: weights, optimizer, step and losses."""

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from ...modules import seal
from ...modules.tensors import dtype_name, metadata, read, write_atomically
from ...options.errors import PackError
from ...storage.differing import changes
from ..settings import Settings
from .adapters import Adapters
from .optimizers import join, split

logger = logging.getLogger(__name__)
NOT_AS_WRITTEN = "this version of the pack did not write it"


class CheckpointError(PackError, RuntimeError):
    """A checkpoint that can't be gone on from; the message names the file and the way out."""


@dataclass
class Progress:
    """Where a run stands, and how it ended.

    It has the optimizer steps done, the parts of each step's loss, and what previews found.
    """

    step: int = 0
    losses: list[dict[str, float]] = field(default_factory=list)
    previews: list[dict[str, Any]] = field(default_factory=list)
    cancelled: bool = False


@dataclass(frozen=True)
class State:
    """All that changes while training, besides the step."""

    adapters: Adapters
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    settings: Settings


@dataclass(frozen=True)
class Checkpoint:
    """The file that a run can go on from, written every `every` steps.

    With `every` 0 it is written only at the end, and when cancelled. `identity` names the data;
    `extra` are tensors that it holds beside the adapters and the optimizer's.
    """

    path: Path
    every: int = 0
    identity: str = ""
    extra: Mapping[str, torch.Tensor] = field(default_factory=dict)

    def is_due(self, step: int) -> bool:
        return self.every > 0 and step % self.every == 0

    def store(self, state: State, progress: Progress) -> None:
        """Write the file. Raises OSError when the disk refuses; the last one is then kept."""
        tensors: dict[str, torch.Tensor] = {}
        kept = {
            "weight": {name: value.detach() for name, value in state.adapters.parameters.items()},
            "extra": dict(self.extra),
            "optimizer": state.optimizer.state_dict(),
            "scaler": state.scaler.state_dict(),
        }
        about = {
            "state": json.dumps(split(kept, tensors)),
            "step": str(progress.step),
            "losses": json.dumps(progress.losses),
            "previews": json.dumps(progress.previews),
            "settings": _fixed(state.settings, self.identity),
        }
        write_atomically(self.path, tensors, {**about, "digest": _digest(about, tensors)})

    def restore(self, state: State) -> Progress:
        """Put the file's state in place, if there is one; where the run stands then.

        Raises CheckpointError for a file that is not as it was written, and for one of other data
        or settings; nothing of it is in place then.
        """
        if not self.path.exists():
            return Progress()
        about, tensors = self._read()
        now = _fixed(state.settings, self.identity)
        if about["settings"] != now:
            raise CheckpointError(
                f"{self.path}: this checkpoint was made with other data or settings"
                f" ({_difference(json.loads(about['settings']), json.loads(now))}). Use the same to"
                " resume (steps may grow), or delete it to start over."
            )
        kept = join(json.loads(about["state"]), tensors)
        for name, value in state.adapters.parameters.items():
            value.data.copy_(kept["weight"][name])
        for name, value in self.extra.items():
            value.copy_(kept["extra"][name])
        state.optimizer.load_state_dict(kept["optimizer"])
        if kept["scaler"]:
            state.scaler.load_state_dict(kept["scaler"])
        logger.info("resuming at step %s from %s", about["step"], self.path)
        return Progress(
            int(about["step"]), json.loads(about["losses"]), json.loads(about["previews"])
        )

    def _read(self) -> tuple[Mapping[str, str], Mapping[str, torch.Tensor]]:
        """What the file says and its tensors, as they were written."""
        try:
            tensors, about, _ = read(self.path, self.path.name)
            fault = None if about.get("digest") == _digest(about, tensors) else NOT_AS_WRITTEN
        except ValueError as error:
            fault = str(error)
        if fault:
            raise _unreadable(self.path, fault)
        return about, tensors


def step_of(path: Path) -> int:
    """The step of a checkpoint, of which only the header is read. Raises CheckpointError."""
    try:
        step = metadata(path, path.name).get("step", "")
    except ValueError as error:
        raise _unreadable(path, str(error)) from error
    if not step.isdecimal():
        raise _unreadable(path, NOT_AS_WRITTEN)
    return int(step)


def _unreadable(path: Path, fault: str) -> CheckpointError:
    return CheckpointError(f"{path}: it can't be read ({fault}). Delete it to start over.")


def _digest(about: Mapping[str, str], tensors: Mapping[str, torch.Tensor]) -> str:
    """SHA-256 over all that a checkpoint says and holds."""
    said = {name: value for name, value in about.items() if name != "digest"}
    kinds = {name: dtype_name(value) for name, value in tensors.items()}
    return seal.seal_sha256({**said, "tensors": seal.tensors_sha256(tensors, kinds)})


def _difference(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """What differs between two records of settings."""
    return "; ".join(
        "the data" if what == "data" else f"{what} {one}, now {two}"
        for what, one, two in changes(before, now)
    )


def _fixed(settings: Settings, identity: str) -> str:
    """The data and settings that must not change between a checkpoint and its resumption."""
    record = json.loads(settings.record())
    for free in ("versions", *(["steps"] if settings.schedule == "constant" else [])):
        record.pop(free)
    return json.dumps({**record, "data": identity}, sort_keys=True)
