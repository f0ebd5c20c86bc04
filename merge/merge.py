"""Modular Merge: the loaded weights with every module's change added (arXiv 2412.00357).

    W* = W0 + dW_safety + sum_i w_i dW_task_i

The sum is checked before the model is handed on.
"""

import logging
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from comfy.model_patcher import ModelPatcher

from ..host.bases import origin
from ..host.weights import check_patcher, loaded_weight
from ..modules.files import Module
from ..modules.signing import signers
from . import lock as guard
from .changes import (
    Change,
    SafetyChange,
    ShapeMismatch,
    TaskChanges,
    dense_change,
    is_additive,
    low_rank,
)
from .concept import Concept, readers, see
from .coverage import target_key
from .entries import (
    Base,
    Entry,
    Task,
    base_of,
    change_of,
    check_companions,
    labels,
    misfit,
    safety_entry,
    task_entry,
)
from .existing import existing_change, summed
from .ledger import LEAST_SIZE, Ledger, losses
from .lock import SafetyError
from .report import EXISTING, about_base, beside_of, build_report, check_safety

logger = logging.getLogger(__name__)
CONFLICTS = ("report", "refuse", "project")
MERGED = "msl_merged"  # the attachment of every model and text encoder that went through a merge
# by weight: the changes on it, each with its module's number
Plan = dict[str, list[tuple[int, Change]]]
# by weight and safety module: its changes, none of which depends on the weight
Sealed = dict[str, dict[int, list[Change]]]


@dataclass(frozen=True)
class Merged:
    """Clones of the inputs with every module on them, and the report as a JSON-ready dict.

    `beside` is the retained safety of each weight with one module alone, by the module's name (and,
    where there are several safety modules, the name of the one it pulls against).
    """

    model: ModelPatcher
    clip: object
    report: dict
    beside: Mapping[str, Mapping[str, float]] = field(default_factory=dict)


def merge(
    model: ModelPatcher,
    safety: Sequence[Module],
    tasks: Sequence[Task] = (),
    clip=None,
    foreign: str = "refuse",
    *,
    on_conflict: str = "report",
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Merged:
    """Add safety and task modules to a ComfyUI MODEL (and CLIP).

    Every change is taken against the loaded weights. Raises SafetyError when a safety tensor does
    not land, when safety modules pull against each other, when a task module fits nowhere or
    wrongly or needs another safety module, and with `foreign="refuse"` when something on the model
    can't be measured.

    `on_conflict` says what happens when task modules pull against a safety change: `report` is the
    plain sum, `refuse` raises SafetyError under the thresholds, `project` takes out of each task
    change, weight by weight, the part that points against a safety change. With a CLIP what is left
    is measured on the safety modules' own prompts too. The inputs stay as they are. `progress` is
    called with weights done and in all.
    """
    if on_conflict not in CONFLICTS:
        raise ValueError(
            f"on_conflict is {on_conflict!r}; it must be one of {', '.join(CONFLICTS)}."
        )
    patchers = [model] + ([clip.patcher] if clip is not None else [])
    for patcher, what in zip(patchers, ("model", "text encoder"), strict=False):
        check_patcher(patcher)
        if patcher.get_attachment(MERGED) is not None:
            raise SafetyError(
                f"This {what} went through Modular Merge already. One merge holds all modules, and"
                " measures each against the others: chain the loaders of safety modules and of"
                " task LoRAs into one Modular Merge, and connect it to the loader of the base."
            )
    found = [item for patcher in patchers for item in guard.foreign_changes(patcher)]
    if found and foreign == "refuse":
        raise SafetyError(guard.foreign_message(found))
    check_companions(safety, tasks)

    base = base_of(model, clip)
    entries = [safety_entry(module, base) for module in safety] + [
        task_entry(task, base) for task in tasks
    ]
    plans = [_plan(patcher, entries, patcher is model) for patcher in patchers]
    ledger, sealed, concept = Ledger(), {}, readers(model, entries)
    more: dict[str, dict[int, float]] = {}
    numbers = [number for number, entry in enumerate(entries) if not entry.is_safety]
    # the text encoder first: the model sees its output
    for patcher, plan in reversed([*zip(patchers, plans, strict=True)]):
        if patcher is model:
            see(concept, _encoder(clip, plans, entries, sealed, more), entries, model)
        for key, changes in plan.items():
            sealed[key] = _measure(patcher, key, changes, entries, base, counts=(ledger, concept))
            progress(len(sealed), sum(map(len, plans)))
        _check_finite(entries, ledger)
        if on_conflict == "project":
            more |= {key: ledger.project(key, numbers, concept.ledger) for key in plan}
    _check_something(entries, ledger)
    check_safety(entries, ledger)
    report, loaded_from = build_report(entries, ledger, found, base.name, concept), origin(model)
    report |= about_base(loaded_from, safety)
    for warning in report["base_warnings"]:
        logger.warning("Modular Merge: %s", warning)
    report["other_patches"] = guard.weight_free_patches(model)
    report["on_conflict"] = on_conflict
    if on_conflict == "refuse" and report["losses"]:
        raise SafetyError(_conflict(report))
    if report["losses"]:
        lost = report["losses"]
        logger.warning(
            "Modular Merge: retained safety is out of bounds in %d measures (first: %s).",
            len(lost),
            lost[0],
        )
    merged_clip = None if clip is None else clip.clone()
    merged = [model.clone()] + ([] if clip is None else [merged_clip.patcher])
    for patcher, plan in zip(merged, plans, strict=True):
        _patch(patcher, plan, entries, sealed, more)
        patcher.set_attachments(MERGED, True)
        if any(sealed[key] for key in plan) or patcher is merged[0]:
            lock = _lock(patcher, plan, sealed, safety, ledger=ledger, policy=foreign)
            lock = replace(lock, base=loaded_from, base_warnings=tuple(report["base_warnings"]))
            if patcher is merged[0]:
                lock = replace(
                    lock, losses=(*lock.losses, *concept.losses([module.name for module in safety]))
                )
            if patcher is not merged[0]:
                lock = replace(lock, encodes=weakref.ref(clip.cond_stage_model))
            guard.fasten(patcher, lock, is_clip=patcher is not merged[0])
    return Merged(merged[0], merged_clip, report, beside_of(labels(entries), ledger))


def _lock(
    patcher: ModelPatcher,
    plan: Plan,
    sealed: Sealed,
    safety: Sequence[Module],
    *,
    ledger: Ledger,
    policy: str,
) -> guard.Lock:
    """What must stay as it is on a patched clone.

    That is all its entries, and the safety changes, which are each weight's last.
    """
    return guard.Lock(
        entries={key: list(values) for key, values in patcher.patches.items()},
        safety={key: patcher.patches[key][-len(sealed[key]) :] for key in plan if sealed[key]},
        losses=tuple(
            loss
            for number, module in enumerate(safety)
            for loss in losses(ledger, number, module.name, plan)
        ),
        names=tuple(module.name for module in safety),
        digests=tuple(module.sha256 for module in safety),
        signers=signers(safety),
        policy=policy,
        beside=tuple(guard.weight_free_patches(patcher)),
    )


def _plan(patcher: ModelPatcher, entries: Sequence[Entry], is_model: bool) -> Plan:
    """What lies on each weight of the model, or of the text encoder.

    Weights patched before are in it too, with nothing new.
    """
    parameters = patcher.model.state_dict().keys()
    plan: Plan = {key: [] for key in patcher.patches}
    for number, entry in enumerate(entries):
        strength = entry.strength_model if is_model else entry.strength_clip
        for target, value in entry.coverage.patches.items():
            if target_key(target) in parameters:
                plan.setdefault(target_key(target), []).append(
                    (number, change_of(target, value, strength))
                )
    return plan


def _measure(
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


def _encoder(
    clip, plans: Sequence[Plan], entries: Sequence[Entry], sealed: Sealed, more: Mapping
) -> object:
    """A text encoder with its changes and no lock, to see what the model will see.

    None when none is connected.
    """
    if clip is None:
        return None
    changed = clip.clone()
    _patch(changed.patcher, plans[1], entries, sealed, more)
    return changed


def _check_finite(entries: Sequence[Entry], ledger: Ledger) -> None:
    for number, entry in enumerate(entries):
        if not ledger.is_finite(number):
            raise SafetyError(
                f"{entry.module.name}: it holds values that are not finite (NaN or infinite)."
            )


def _check_something(entries: Sequence[Entry], ledger: Ledger) -> None:
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


def _conflict(report: dict) -> str:
    lost, names = report["losses"], report["to_blame"]
    return (
        f"{len(names)} modules pull against the safety module (first: {', '.join(names[:1])}):"
        f" {len(lost)} measures are out of bounds (first: {lost[0]}). Lower their strength, leave"
        " them out, or set on_conflict to project."
    )


def _patch(
    patcher: ModelPatcher,
    plan: Plan,
    entries: Sequence[Entry],
    sealed: Sealed,
    more: Mapping[str, Mapping[int, float]],
) -> None:
    """Put the changes on a clone: the tasks' as one patch a weight, then the safety modules'.

    Each safety module has a patch of its own. `more` is how much of each safety change the tasks'
    patch brings along, where they were projected.
    """
    tasks: dict[str, TaskChanges] = {}
    held: dict[int, dict[str, SafetyChange]] = {}
    for key, changes in plan.items():
        members = [
            _member(each)
            for number, each in changes
            if not entries[number].is_safety and each.strength != 0.0
        ]
        for number, part in more.get(key, {}).items():
            members += [_member(each, part) for each in sealed[key][number]]
        if members:
            # Changes that depend on W0 must see it: what already sat on the weight moves into the
            # same patch.
            relative = any(not is_additive(member[1]) for member in members)
            tasks[key] = TaskChanges(
                set(), (patcher.patches.pop(key, []) if relative else [], tuple(members))
            )
        for number, some in sealed[key].items():
            change = SafetyChange(set(), (entries[number].module.name, tuple(map(_member, some))))
            held.setdefault(number, {})[key] = change
    for patches in (tasks, *(held[number] for number in sorted(held))):
        lost = patches.keys() - set(patcher.add_patches(patches))
        if lost:
            raise SafetyError(
                f"ComfyUI did not take {len(lost)} of {len(patches)} changes (first: {min(lost)})."
            )


def _member(change: Change, part: float = 1.0) -> tuple:
    """A change, or a part of it, as adapters keep it."""
    return (part * change.strength, change.value, change.offset, change.function)
