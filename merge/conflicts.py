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
        first, *others = names or ["what is already on the model"]
        beside = f"{first} and {amount(len(others), 'more LoRA')}" if others else first
        more = f", and {amount(len(lost) - 1, 'more finding')}" if lost[1:] else ""
        raise SafetyError(
            f"Too little of the safety LoRA is left beside {beside}: {lost[0]}{more}. Lower the"
            " strength, remove it, or set on_conflict to project."
        )


@dataclass(frozen=True)
class Conflict:
    """One way to treat a conflict.

    `words` stand after "<name>: " in the node's tooltip. `settle(ledger, key, tasks,
    concept)` may change what the task modules do to one weight, in both ledgers, and gives
    how much more of each safety change the weight then needs. `judge(report)` raises SafetyError
    for a merge that must not be.
    """

    words: str
    settle: Callable[[Ledger, str, Sequence[int], Ledger], dict[int, float]] = _plain_sum
    judge: Callable[[Mapping[str, Any]], None] = _allow


CONFLICTS = {
    "report": Conflict("add them up as they are and say so"),
    "refuse": Conflict("stop the run", judge=_refuse),
    "project": Conflict(
        "take that part out of the task LoRAs, layer by layer",
        settle=_project,
    ),
}
