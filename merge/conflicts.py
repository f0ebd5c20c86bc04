"""on_conflict: what a merge does where task modules pull against a safety module, a row each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..modules.errors import SafetyError
from ..options.words import amount

if TYPE_CHECKING:
    from .ledger import Ledger


def _project(ledger: Ledger, key: str, numbers: Sequence[int], seen: Ledger) -> dict[int, float]:
    from .projection import project  # needs ComfyUI, and a command line names the ways before

    return project(ledger, key, numbers, seen)


def _plain_sum(ledger: Ledger, key: str, tasks: Sequence[int], concept: Ledger) -> dict[int, float]:
    return {}


def _allow(report: Mapping[str, Any]) -> None:
    """Accept every merge."""


def _refuse(report: Mapping[str, Any]) -> None:
    lost, names = report["losses"], report["to_blame"]
    if lost:
        raise SafetyError(
            f"{amount(len(names), 'task LoRA pulls', 'task LoRAs pull')} against the safety LoRA"
            f" (first: {', '.join(names[:1])}): {amount(len(lost), 'measure is', 'measures are')}"
            f" out of bounds (first: {lost[0]}). Lower the strength, leave it out, or set"
            " on_conflict to project."
        )


@dataclass(frozen=True)
class Conflict:
    """One way to treat a conflict.

    `words` end the sentence "<name> ..." of the node's tooltip. `settle(ledger, key, tasks,
    concept)` may change what the task modules do to one weight, in both ledgers, and gives
    how much more of each safety change the weight then needs. `judge(report)` raises SafetyError
    for a merge that must not be.
    """

    words: str
    settle: Callable[[Ledger, str, Sequence[int], Ledger], dict[int, float]] = _plain_sum
    judge: Callable[[Mapping[str, Any]], None] = _allow


CONFLICTS = {
    "report": Conflict("adds them up as they are and says so"),
    "refuse": Conflict("stops", judge=_refuse),
    "project": Conflict(
        "takes that part out of the task LoRAs, layer by layer",
        settle=_project,
    ),
}
