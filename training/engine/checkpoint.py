"""What a run goes on from: one safetensors file with weights, optimizer, step and losses.

It is written whole or not at all.
"""

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from ...modules.tensors import write_atomically
from ..settings import Settings
from .adapters import Adapters
from .optimizers import join, split

logger = logging.getLogger(__name__)


class CheckpointError(RuntimeError):
    """A checkpoint that can't be gone on from; the message names the file and the way out."""


@dataclass
class Progress:
    """Where a run stands, and how it ended.

    It has the optimizer steps done, the parts of each step's loss, and what previews found.
    """

    step: int = 0
    losses: list[dict[str, float]] = field(default_factory=list)
    previews: list[dict] = field(default_factory=list)
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
    `extra` are tensors that change with each step.
    """

    path: Path
    every: int = 0
    identity: str = ""
    extra: Mapping[str, torch.Tensor] = field(default_factory=dict)

    def is_due(self, step: int) -> bool:
        return self.every > 0 and step % self.every == 0

    def store(self, state: State, progress: Progress) -> None:
        """Write the file.

        Raises OSError when the disk does not take it; then the last one is still there.
        """
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
        write_atomically(self.path, tensors, about)

    def restore(self, state: State) -> Progress:
        """Put the file's state in place, if there is one; where the run stands then."""
        if not self.path.exists():
            return Progress()
        try:
            with safe_open(str(self.path), framework="pt") as file:
                about = file.metadata() or {}
                # SIM118: the file is no mapping
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except SafetensorError as error:
            raise CheckpointError(
                f"{self.path}: it can't be read ({error}). Delete it to start anew."
            ) from error
        if about.get("settings") != _fixed(state.settings, self.identity):
            raise CheckpointError(
                f"{self.path}: this checkpoint was made with other data or settings"
                f" ({about.get('settings')}). Use the same to resume (steps may grow), or delete it"
                " to start anew."
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


def _fixed(settings: Settings, identity: str) -> str:
    """The data and settings that must not change between a checkpoint and its resumption."""
    record = json.loads(settings.record())
    for free in ("versions", *(["steps"] if settings.schedule == "constant" else [])):
        record.pop(free)
    return json.dumps({**record, "data": identity}, sort_keys=True)


def resume_path(output: Path, resume: bool) -> Path:
    """The checkpoint beside an output, under a name that no loader lists.

    Without `resume` an old one is removed. An output that exists is refused, unless there is a
    checkpoint to go on from.
    """
    path = output.with_suffix(".resume")
    if output.exists() and not (resume and path.exists()):
        finished = " It is finished: there is no checkpoint to go on from." if resume else ""
        raise FileExistsError(
            f"{output} exists already.{finished} Choose another name, or delete it."
        )
    if not resume:
        path.unlink(missing_ok=True)
    output.parent.mkdir(parents=True, exist_ok=True)
    return path
