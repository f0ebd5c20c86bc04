"""What a merge counts of each weight, and what the sums must say before anything is patched."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from comfy.model_patcher import ModelPatcher

from ..host.weights import loaded_weight
from ..modules.errors import SafetyError, ShapeMismatch
from .changes import (
    Change,
    LowRank,
    dense_change,
    existing_change,
    fixed,
    low_rank,
    summed,
)
from .concept import ConceptLedger, concept_ledger, encode_prompts
from .conflicts import Conflict
from .entries import Base, Entry, labels, misfit, safety_of
from .ledger import EXISTING, LAYER_THRESHOLD, LEAST_SIZE, THRESHOLD, Ledger
from .networks import Network, Networks


def measure(
    networks: Networks,
    base: Base,
    conflict: Conflict,
    progress: Callable[[int, int], None],
) -> "Sums":
    """Measure every weight, and settle what pulls against a safety module.

    The text encoder comes first: the model sees its output. Raises SafetyError for a module that
    does not fit, is not finite, or, a safety module, changes next to nothing, and for safety
    modules that pull against each other.
    """
    model, entries = networks.model, networks.model.plan.entries
    concept = concept_ledger(model.patcher, entries)
    sums = Sums(entries, base, Ledger(), concept)

    def count() -> None:
        progress(len(sums.ledger.bases), networks.weights)

    for text in networks.texts:
        sums.add(text, conflict, count)
    encode_prompts(concept, networks.encoder, model.patcher, entries)
    sums.add(model, conflict, count)
    check_changes(entries, sums.ledger)
    check_safety(sums)
    return sums


@dataclass
class Sums:
    """What is counted of a merge's modules: over all weights, and on the concept's prompts."""

    entries: Sequence[Entry]
    base: Base
    ledger: Ledger
    concept: ConceptLedger

    @cached_property
    def names(self) -> list[str]:
        """A name for each module."""
        return labels(self.entries)

    @cached_property
    def safety(self) -> list[int]:
        """The indices s of the safety modules."""
        return safety_of(self.entries)

    def add(self, network: Network[Any], conflict: Conflict, count: Callable[[], None]) -> None:
        """Count a network's weights; its plan then has what is sealed and what is projected."""
        plan = network.plan
        for key in plan.changes:
            plan.sealed[key] = self._weight(network.patcher, key, plan.changes[key])
            count()
        check_finite(self.entries, self.ledger)
        tasks = [i for i, entry in enumerate(self.entries) if not entry.is_safety]
        for key in plan.changes:
            plan.projected[key] = conflict.settle(self.ledger, key, tasks, self.concept.ledger)

    def _weight(
        self, patcher: ModelPatcher, key: str, changes: Sequence[tuple[int, Change]]
    ) -> dict[int, list[Change]]:
        """Count one weight; its safety changes by module, none of which depends on the weight."""
        w0 = loaded_weight(patcher, key)
        parts: dict[int, list[LowRank | torch.Tensor]] = {}
        sealed: dict[int, list[Change]] = {}
        for i, change in changes:
            size = self._size(i, change, w0, key)
            parts.setdefault(i, []).append(size)
            if self.entries[i].is_safety:
                sealed.setdefault(i, []).append(fixed(change, size))
        sizes = {i: some[0] if len(some) == 1 else summed(some, w0) for i, some in parts.items()}
        safety = {i: size for i, size in sizes.items() if i in sealed}
        others = {i: size for i, size in sizes.items() if i not in sealed}
        if key in patcher.patches:
            others[EXISTING] = existing_change(patcher, key, w0)
        self.ledger.add(key, torch.linalg.vector_norm(w0).item() ** 2, safety, others)
        self.concept.add(key, safety, others)
        if self.ledger.may_be_rescaled(key):
            changed = summed([*safety.values(), *others.values()], w0).add_(w0)
            self.ledger.sums[key] = torch.linalg.vector_norm(changed).item() ** 2
        return sealed

    def _size(self, i: int, change: Change, w0: torch.Tensor, key: str) -> LowRank | torch.Tensor:
        """A change against W0, low-rank where it is a plain LoRA on the whole weight."""
        factors = low_rank(change, w0.device)
        try:
            return dense_change(change, w0, key) if factors is None else factors
        except ShapeMismatch as error:
            wrong = {key: str(error)}
            raise SafetyError(misfit(self.entries[i].module, wrong, self.base)) from error


def check_finite(entries: Sequence[Entry], ledger: Ledger) -> None:
    """Raise SafetyError for a module with NaN or infinite values."""
    for i, entry in enumerate(entries):
        if not ledger.is_finite(i):
            raise SafetyError(
                f"{entry.module.name}: it contains NaN or infinite values. Train it again, or"
                " download it again."
            )


class TooWeak(SafetyError):
    """A safety module changes nothing, or next to nothing."""


def check_changes(entries: Sequence[Entry], ledger: Ledger) -> None:
    """Raise TooWeak for a safety module that changes nothing, or next to nothing."""
    for s in safety_of(entries):
        name, size = entries[s].module.name, ledger.relative_size(s)
        if not ledger.changes_anything(s):
            raise TooWeak(
                f"{name}: this safety LoRA changes nothing: all its changes are zero. Train it for"
                " longer, or use another one."
            )
        if 0.0 < size < LEAST_SIZE:
            raise TooWeak(
                f"{name}: it is too weak to suppress anything: its changes have {100 * size:.2g} %"
                f" of the size of the weights, and at least {100 * LEAST_SIZE:g} % is needed. Train"
                " it for longer, or seal the LoRA at a higher strength."
            )


def check_safety(sums: Sums) -> None:
    """Raise SafetyError when safety modules undo each other, which no task makes up for."""
    names, safety, ledger = sums.names, sums.safety, sums.ledger
    for s in safety:
        layers = ledger.retained_by_layer(s, safety)
        worst, retained = min(layers, key=layers.__getitem__), ledger.retained(s, safety)
        if retained >= THRESHOLD and layers[worst] >= LAYER_THRESHOLD:
            continue
        others = [other for other in safety if other != s and (other, s) in ledger.dots]
        by = min(others, key=lambda other: sum(ledger.dots[other, s].values()))
        raise SafetyError(
            f"The safety LoRAs {names[s]} and {names[by]} weaken each other: {retained:.3f} of"
            f" {names[s]} is left ({layers[worst]:.3f} in {worst}). Use one of them, or one that"
            " was trained for both concepts."
        )
