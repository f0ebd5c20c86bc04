"""Modular Merge: W* = W0 + dW_safety + sum_i w_i dW_task_i (arXiv 2412.00357), checked before the model is handed on."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from comfy.model_patcher import ModelPatcher

from . import guard, weights
from .changes import Change, ShapeMismatch, TaskChanges, dense_change, is_additive, low_rank
from .coverage import target_key
from .entries import Base, Entry, Task, base_of, change_of, check_companions, misfit, safety_entry, task_entry
from .files import Module
from .guard import SafetyError
from .measure import THRESHOLD, Ledger
from .report import build_report

logger = logging.getLogger(__name__)
CONFLICTS = ("report", "refuse", "project")
EXISTING = -1  # the ledger's number for what already sat on the model; modules count from 0
Plan = dict[str, list[tuple[int, Change]]]  # by weight: the changes on it, each with its module's number


@dataclass(frozen=True)
class Merged:
    """Clones of the inputs with every module on them, and the report as a JSON-ready dict.

    `beside` is the retained safety of each weight with one module alone, by the module's name.
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
    on_conflict: str = "report",
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Merged:
    """Add safety and task modules to a ComfyUI MODEL (and CLIP), every change taken against the loaded weights.

    Raises SafetyError when a safety tensor does not land, when a task module fits nowhere or wrongly or needs another
    safety module, and with `foreign="refuse"` when something on the model can't be measured. `on_conflict` says what
    happens when task modules pull against the safety change: `report` is the plain sum, `refuse` raises SafetyError under
    the thresholds, `project` takes out of each task change, weight by weight, the part that points against the safety
    change. The inputs stay as they are. `progress` is called with weights done and in all.
    """
    if on_conflict not in CONFLICTS:
        raise ValueError(f"on_conflict is {on_conflict!r}; it must be one of {', '.join(CONFLICTS)}.")
    patchers = [model] + ([clip.patcher] if clip is not None else [])
    for patcher in patchers:
        weights.check_patcher(patcher)
    if model.get_attachment(guard.KEY) is not None:
        raise SafetyError(
            "This model went through Modular Merge already. One merge holds all modules, and measures each against the "
            "others: chain the loaders of safety modules and of task LoRAs into one Modular Merge."
        )
    found = [item for patcher in patchers for item in guard.foreign_changes(patcher)]
    if found and foreign == "refuse":
        raise SafetyError(guard.foreign_message(found))
    check_companions(safety, tasks)

    base = base_of(model, clip)
    entries = [safety_entry(module, base) for module in safety] + [task_entry(task, base) for task in tasks]
    plans = [_plan(patcher, entries, patcher is model) for patcher in patchers]
    ledger, sealed = Ledger(), {}
    for patcher, plan in zip(patchers, plans, strict=True):
        for key, changes in plan.items():
            sealed[key] = _measure(patcher, key, changes, entries, base, ledger)
            progress(len(sealed), sum(map(len, plans)))
    _check_sizes(entries, ledger)

    more: dict[str, float] = {}
    if on_conflict == "project":
        numbers = [number for number, entry in enumerate(entries) if not entry.is_safety]
        more = {key: ledger.project(key, numbers) for key in list(ledger.layers)}
    report = build_report(entries, ledger, EXISTING, found, base.name)
    report["other_patches"] = guard.weight_free_patches(model)
    report["on_conflict"] = on_conflict
    if on_conflict == "refuse" and report["to_blame"]:
        raise SafetyError(_conflict(report))
    if report["retained_safety"] < THRESHOLD:
        logger.warning(
            "Modular Merge: retained safety is %.3f, under %.1f (worst layer: %s).",
            report["retained_safety"],
            THRESHOLD,
            report["worst_layer"]["key"],
        )
    merged_clip = None if clip is None else clip.clone()
    merged = [model.clone()] + ([] if clip is None else [merged_clip.patcher])
    for patcher, plan in zip(merged, plans, strict=True):
        _patch(patcher, plan, entries, sealed, more)
        if any(sealed[key] for key in plan) or patcher is merged[0]:
            lock = _lock(patcher, plan, sealed, safety, ledger, report["retained_safety"], foreign)
            guard.fasten(patcher, lock, is_clip=patcher is not merged[0])
    return Merged(merged[0], merged_clip, report, _beside(entries, ledger))


def _lock(
    patcher: ModelPatcher,
    plan: Plan,
    sealed: Mapping[str, list[Change]],
    safety: Sequence[Module],
    ledger: Ledger,
    retained: float,
    foreign: str,
) -> guard.Lock:
    """What must stay as it is on a patched clone: all its entries, and the safety changes, which are each weight's last."""
    return guard.Lock(
        entries={key: list(values) for key, values in patcher.patches.items()},
        safety={key: patcher.patches[key][-len(sealed[key]) :] for key in plan if sealed[key]},
        patches_uuid=patcher.patches_uuid,
        retained=retained,
        by_layer={key: rho for key, rho in ledger.retained_by_layer().items() if key in plan},
        names=tuple(module.name for module in safety),
        digests=tuple(module.sha256 for module in safety),
        policy=foreign,
    )


def _beside(entries: Sequence[Entry], ledger: Ledger) -> dict[str, dict[str, float]]:
    """Retained safety of each weight with one module alone, for every module that changes such a weight."""
    names = {number: entry.module.name for number, entry in enumerate(entries) if not entry.is_safety}
    found = {name: ledger.retained_beside(at) for at, name in {**names, EXISTING: "already on the model"}.items()}
    return {name: layers for name, layers in found.items() if layers}


def _plan(patcher: ModelPatcher, entries: Sequence[Entry], is_model: bool) -> Plan:
    """What lies on each weight of the model, or of the text encoder; weights patched before come with nothing new."""
    parameters = patcher.model.state_dict().keys()
    plan: Plan = {key: [] for key in patcher.patches}
    for number, entry in enumerate(entries):
        strength = entry.strength_model if is_model else entry.strength_clip
        for target, value in entry.coverage.patches.items():
            if target_key(target) in parameters:
                plan.setdefault(target_key(target), []).append((number, change_of(target, value, strength)))
    return plan


def _measure(
    patcher: ModelPatcher, key: str, changes: list[tuple[int, Change]], entries: Sequence[Entry], base: Base, ledger: Ledger
) -> list[Change]:
    """Count one weight in the ledger; return its safety changes in a form that does not depend on the weight."""
    w0 = weights.loaded_weight(patcher, key)
    parts: dict[int, list] = {}
    sealed = []
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
            sealed.append(change if is_additive(change.value) else Change(1.0, ("diff", (size.cpu(),))))
    sizes = {number: some[0] if len(some) == 1 else weights.summed(some, w0) for number, some in parts.items()}
    safety = {number: size for number, size in sizes.items() if entries[number].is_safety}
    others = {number: size for number, size in sizes.items() if number not in safety}
    if key in patcher.patches:
        others[EXISTING] = weights.existing_change(patcher, key, w0)
    ledger.add(key, torch.linalg.vector_norm(w0).item() ** 2, safety, others)
    return sealed


def _check_sizes(entries: Sequence[Entry], ledger: Ledger) -> None:
    for number, entry in enumerate(entries):
        if not ledger.is_finite(number):
            raise SafetyError(f"{entry.module.name}: it holds values that are not finite (NaN or infinite).")
        if entry.is_safety and not ledger.changes_anything(number):
            raise SafetyError(f"{entry.module.name}: this safety module changes nothing; all its changes are zero.")


def _conflict(report: dict) -> str:
    worst, names = report["worst_layer"], report["to_blame"]
    return (
        f"{len(names)} modules pull against the safety module (first: {names[0]}): retained safety is "
        f"{report['retained_safety']:.3f}, and {worst['retained_safety']:.3f} in {worst['key']}. Lower their strength, "
        "leave them out, or set on_conflict to project."
    )


def _patch(
    patcher: ModelPatcher,
    plan: Plan,
    entries: Sequence[Entry],
    sealed: Mapping[str, list[Change]],
    more: Mapping[str, float],
) -> None:
    """Put the changes on a clone: the tasks' as one patch a weight, then each safety change as a patch of its own.

    `more` is how much of the safety change the tasks' patch brings along, where they were projected.
    """
    tasks: dict[str, TaskChanges] = {}
    rounds: dict[tuple[int, float], dict] = {}  # add_patches reads the whole model: one call a module, not a weight
    for key, changes in plan.items():
        members = tuple(
            (change.strength, change.value, change.offset, change.function)
            for number, change in changes
            if not entries[number].is_safety and change.strength != 0.0
        )
        if more.get(key):
            members += tuple((more[key] * each.strength, each.value, each.offset, each.function) for each in sealed[key])
        if members:
            # Changes that depend on W0 must see it: what already sat on the weight moves into the same patch.
            relative = any(not is_additive(member[1]) for member in members)
            tasks[key] = TaskChanges(set(), (patcher.patches.pop(key, []) if relative else [], members))
        for place, change in enumerate(sealed[key]):
            target = key if change.offset is None else (key, change.offset, change.function)
            rounds.setdefault((place, change.strength), {})[target] = change.value
    patcher.add_patches(tasks)
    for (_, strength), patches in sorted(rounds.items(), key=lambda item: item[0]):
        patcher.add_patches(patches, strength)
