"""Modular Merge: the loaded weights with every module's change added (arXiv 2412.00357).

    W* = W0 + dW_safety + sum_i w_i dW_task_i

The sum is checked before the model is handed on.
"""

import logging
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain

from comfy.model_patcher import ModelPatcher

from ..host.bases import origin
from ..host.weights import check_patcher
from ..modules.choices import chosen
from ..modules.errors import SafetyError
from ..modules.files import Module
from ..modules.signing import signers
from .concept import readers, see
from .conflicts import CONFLICTS
from .entries import (
    Entry,
    Task,
    base_of,
    check_companions,
    labels,
    safety_entry,
    task_entry,
)
from .fasten import fasten
from .ledger import Ledger, losses
from .lock import Lock
from .measure import check_finite, check_something, measure
from .on_model import FOREIGN, foreign_changes, foreign_message, weight_free_patches
from .plan import Plan, Sealed, plan_of, put_on
from .report import about_base, beside_of, build_report, check_safety
from .rounding import rounded

logger = logging.getLogger(__name__)
MERGED = "msl_merged"  # the attachment of every model and text encoder that went through a merge


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
    conflict = CONFLICTS[chosen(on_conflict, CONFLICTS, "on_conflict")]
    foreign = chosen(foreign, FOREIGN, "foreign_changes")
    patchers = [model] + ([clip.patcher] if clip is not None else [])
    for patcher, what in zip(patchers, ("model", "text encoder"), strict=False):
        check_patcher(patcher)
        if patcher.get_attachment(MERGED) is not None:
            raise SafetyError(
                f"This {what} went through Modular Merge already. One merge holds all modules, and"
                " measures each against the others: chain the loaders of safety modules and of"
                " task LoRAs into one Modular Merge, and connect it to the loader of the base."
            )
    found = [item for patcher in patchers for item in foreign_changes(patcher)]
    if found and foreign == "refuse":
        raise SafetyError(foreign_message(found))
    check_companions(safety, tasks)

    base = base_of(model, clip)
    entries = [safety_entry(module, base) for module in safety] + [
        task_entry(task, base) for task in tasks
    ]
    plans = [plan_of(patcher, entries, patcher is model) for patcher in patchers]
    ledger, sealed, concept = Ledger(), {}, readers(model, entries)
    more: dict[str, dict[int, float]] = {}
    numbers = [number for number, entry in enumerate(entries) if not entry.is_safety]
    # the text encoder first: the model sees its output
    for patcher, plan in reversed([*zip(patchers, plans, strict=True)]):
        if patcher is model:
            see(concept, _encoder(clip, plans, entries, sealed, more), entries, model)
        for key, changes in plan.items():
            sealed[key] = measure(patcher, key, changes, entries, base, counts=(ledger, concept))
            progress(len(sealed), sum(map(len, plans)))
        check_finite(entries, ledger)
        more |= {key: conflict.settle(ledger, key, numbers, concept.ledger) for key in plan}
    check_something(entries, ledger)
    check_safety(entries, ledger)
    report, loaded_from = build_report(entries, ledger, found, base.name, concept), origin(model)
    report |= about_base(loaded_from, safety)
    for warning in report["base_warnings"]:
        logger.warning("Modular Merge: %s", warning)
    report["other_patches"] = weight_free_patches(model)
    report["on_conflict"] = on_conflict
    conflict.judge(report)
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
        put_on(patcher, plan, entries, sealed, more)
        patcher.set_attachments(MERGED, True)
        if any(sealed[key] for key in plan) or patcher is merged[0]:
            lock = _lock(patcher, plan, sealed, safety, ledger=ledger, policy=foreign)
            lock = replace(
                lock,
                base=loaded_from,
                base_warnings=tuple(report["base_warnings"]),
                tasks=_tasks(patchers, tasks, on_conflict),
            )
            held = {key: [*chain(*sealed[key].values())] for key in plan if sealed[key]}
            formats, at_use = rounded(patcher, held)
            lock = replace(lock, at_use=at_use)
            if formats:
                what = "rounding" if patcher is merged[0] else "rounding_of_the_text_encoder"
                report[what] = formats
            if patcher is merged[0]:
                lock = replace(
                    lock, losses=(*lock.losses, *concept.losses([module.name for module in safety]))
                )
            if patcher is not merged[0]:
                lock = replace(lock, encodes=weakref.ref(clip.cond_stage_model))
            fasten(patcher, lock, is_clip=patcher is not merged[0])
    return Merged(merged[0], merged_clip, report, beside_of(labels(entries), ledger))


def _lock(
    patcher: ModelPatcher,
    plan: Plan,
    sealed: Sealed,
    safety: Sequence[Module],
    *,
    ledger: Ledger,
    policy: str,
) -> Lock:
    """What must stay as it is on a patched clone.

    That is all its entries, and the safety changes, which are each weight's last.
    """
    return Lock(
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
        beside=tuple(weight_free_patches(patcher)),
    )


def _tasks(patchers: Sequence[ModelPatcher], tasks: Sequence[Task], on_conflict: str) -> tuple:
    """What a merge adds beside safety modules; equal for merges of the same.

    Patches from before the merge are the same when they are one object, which the locks keep alive.
    """
    before = ((key, *map(id, some)) for each in patchers for key, some in each.patches.items())
    also = sorted((each.module.sha256, each.strength_model, each.strength_clip) for each in tasks)
    return (on_conflict if also else "", *also, *sorted(before))


def _encoder(
    clip, plans: Sequence[Plan], entries: Sequence[Entry], sealed: Sealed, more: Mapping
) -> object:
    """A text encoder with its changes and no lock, to see what the model will see.

    None when none is connected.
    """
    if clip is None:
        return None
    changed = clip.clone()
    put_on(changed.patcher, plans[1], entries, sealed, more)
    return changed
