"""What a merge counts of each weight, and what the sums must say before anything is patched."""

from collections.abc import Sequence

import comfy.lora
import torch
from comfy.model_patcher import ModelPatcher

from ..host.weights import loaded_weight
from ..modules.errors import SafetyError, ShapeMismatch
from .changes import Change, LowRank, dense_change, is_additive, low_rank
from .concept import Concept
from .entries import Base, Entry, labels, misfit
from .ledger import LAYER_THRESHOLD, LEAST_SIZE, THRESHOLD, Ledger
from .report import EXISTING


def measure(
    patcher: ModelPatcher,
    key: str,
    changes: list[tuple[int, Change]],
    entries: Sequence[Entry],
    base: Base,
    *,
    counts: tuple[Ledger, Concept],
) -> dict[int, list[Change]]:
    """Count one weight in the ledgers; return its safety changes by module.

    The changes are in a form that does not depend on the weight.
    """
    ledger, concept = counts
    w0 = loaded_weight(patcher, key)
    parts: dict[int, list] = {}
    sealed: dict[int, list[Change]] = {}
    for number, change in changes:
        module = entries[number].module
        size = low_rank(change, w0.device)
        try:
            size = dense_change(change, w0, key) if size is None else size
        except ShapeMismatch as error:
            raise SafetyError(misfit(module, {key: str(error)}, base)) from error
        parts.setdefault(number, []).append(size)
        if entries[number].is_safety:
            # A safety change that depends on the weight it sees is fixed here, against W0.
            fixed = change if is_additive(change.value) else Change(1.0, ("diff", (size.cpu(),)))
            sealed.setdefault(number, []).append(fixed)
    sizes = {
        number: some[0] if len(some) == 1 else summed(some, w0) for number, some in parts.items()
    }
    safety = {number: size for number, size in sizes.items() if entries[number].is_safety}
    others = {number: size for number, size in sizes.items() if number not in safety}
    if key in patcher.patches:
        others[EXISTING] = existing_change(patcher, key, w0)
    ledger.add(key, torch.linalg.vector_norm(w0).item() ** 2, safety, others)
    concept.add(key, safety, others)
    if ledger.may_be_rescaled(key):
        changed = summed([*safety.values(), *others.values()], w0).add_(w0)
        ledger.sums[key] = torch.linalg.vector_norm(changed).item() ** 2
    return sealed


def existing_change(patcher: ModelPatcher, key: str, w0: torch.Tensor) -> LowRank | torch.Tensor:
    """What already sits on a weight, against W0: low-rank if it is one plain LoRA, else dense.

    Raises SafetyError where it makes a weight of another shape.
    """
    chain = patcher.patches[key]
    shape = tuple(comfy.lora.calculate_shape(chain, w0, key))
    if shape != w0.shape:
        raise SafetyError(
            f"A LoRA on this model turns {key} of {tuple(w0.shape)} into {shape}: against the"
            " loaded weight that can't be measured, and nothing is merged. Take out the loader of"
            " this LoRA (Flux control LoRAs are made so) before Modular Merge."
        )
    strength, value, strength_model, offset, function = chain[0]
    if len(chain) == 1 and strength_model == 1.0 and not isinstance(value, list | tuple):
        size = low_rank(Change(strength, value, offset, function), w0.device)
        if size is not None:
            return size
    return comfy.lora.calculate_weight(chain, w0.clone(), key) - w0


def summed(parts: list[LowRank | torch.Tensor], w0: torch.Tensor) -> torch.Tensor:
    """Several changes of one weight as one dense tensor of W0's shape."""
    total = torch.zeros_like(w0)
    for part in parts:
        total += (part.up @ part.down).reshape(w0.shape) if isinstance(part, LowRank) else part
    return total


def check_finite(entries: Sequence[Entry], ledger: Ledger) -> None:
    for number, entry in enumerate(entries):
        if not ledger.is_finite(number):
            raise SafetyError(
                f"{entry.module.name}: it holds values that are not finite (NaN or infinite)."
            )


def check_something(entries: Sequence[Entry], ledger: Ledger) -> None:
    for number, entry in enumerate(entries):
        if entry.is_safety and not ledger.changes_anything(number):
            raise SafetyError(
                f"{entry.module.name}: this safety module changes nothing;"
                " all its changes are zero."
            )
        size = ledger.relative_size(number)
        if entry.is_safety and 0.0 < size < LEAST_SIZE:
            raise SafetyError(
                f"{entry.module.name}: its changes are {size:.2g} of the size of the weights that"
                f" they change, and a safety module has at least {LEAST_SIZE}: one so small"
                " suppresses nothing. Train it for longer, or seal the LoRA at a higher strength."
            )


def check_safety(entries: Sequence[Entry], ledger: Ledger) -> None:
    """Raise SafetyError when safety modules undo each other.

    None of them is then whole beside the others, whatever the tasks.
    """
    names, safety = (
        labels(entries),
        [number for number, entry in enumerate(entries) if entry.is_safety],
    )
    for safe in safety:
        layers = ledger.retained_by_layer(safe, safety)
        worst, retained = min(layers, key=layers.__getitem__), ledger.retained(safe, safety)
        if retained >= THRESHOLD and layers[worst] >= LAYER_THRESHOLD:
            continue
        others = [other for other in safety if other != safe and (other, safe) in ledger.dots]
        by = min(others, key=lambda other: sum(ledger.dots[other, safe].values()))
        raise SafetyError(
            f"The safety modules {names[safe]} and {names[by]} pull against each other:"
            f" {retained:.3f} of {names[safe]} is left beside {len(others)} others, and"
            f" {layers[worst]:.3f} in {worst}. Use one of them, or a module that was trained for"
            " both concepts."
        )
