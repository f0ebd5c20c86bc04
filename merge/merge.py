"""Modular Merge: the loaded weights with every module's change added (arXiv 2412.00357).

    W* = W0 + dW_safety + sum_i w_i dW_task_i

The sum is checked before the model is handed on.
"""

import itertools
import logging
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from comfy.model_patcher import ModelPatcher

from ..function.canary import text_canary
from ..function.limits import DEFAULT, Limits
from ..function.number import Number
from ..host.bases import origin
from ..host.weights import check_patcher
from ..modules.errors import SafetyError
from ..modules.files import Module
from ..modules.signing import signers
from ..options.choices import chosen
from .arms import Arms
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
from .identity import identity_of, tasks_of
from .in_function import counted_from, in_function
from .ledger import Ledger
from .lock import Lock
from .measure import check_finite, check_safety, check_something, measure
from .on_model import KEY, foreign_changes, foreign_message, weight_free_patches
from .plan import Plan, Sealed, plan_of, put_on
from .report import about_base, beside_of, build_report, lost_of
from .rounding import rounded
from .settings import FOREIGN

logger = logging.getLogger(__name__)
ROUNDING = ("rounding", "rounding_of_the_text_encoder")  # in the report, of model and text encoder
MERGED = "msl_merged"  # the attachment of every model and text encoder that went through a merge


@dataclass(frozen=True)
class Merged:
    """Clones of the inputs with every module on them, and the report as a JSON-ready dict.

    `beside` is the retained safety of each weight with one module alone, by the module's name (and,
    where there are several safety modules, the name of the one it pulls against). `computed` is
    what the network computes of each safety module's prompts.
    """

    model: ModelPatcher
    clip: object
    report: dict
    beside: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    computed: Mapping[str, Number] = field(default_factory=dict)


def merge(
    model: ModelPatcher,
    safety: Sequence[Module],
    tasks: Sequence[Task] = (),
    clip=None,
    foreign: str = "refuse",
    *,
    on_conflict: str = "report",
    limits: Limits = DEFAULT,
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
    is measured on the safety modules' own prompts too, in what the network computes, under
    `limits`. The inputs stay as they are. `progress` is called with what is done and in all.
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
    loaded_from, names = origin(model), labels(entries)
    merged_clip = None if clip is None else clip.clone()
    merged = [model.clone()] + ([] if clip is None else [merged_clip.patcher])
    locks, formats = [], {}
    for patcher, plan, what in zip(merged, plans, ROUNDING, strict=False):
        put_on(patcher, plan, entries, sealed, more)
        patcher.set_attachments(MERGED, True)
        held = {key: [*itertools.chain(*sealed[key].values())] for key in plan if sealed[key]}
        locks.append(None)
        if not held and patcher is not merged[0]:
            continue
        formats[what], at_use = rounded(patcher, held)
        lock = _lock(patcher, plan, sealed, safety, policy=foreign)
        lock = replace(lock, base=loaded_from, at_use=at_use)
        locks[-1] = replace(lock, tasks=tasks_of(patchers, tasks, on_conflict))
        fasten(patcher, locks[-1], is_clip=patcher is not merged[0])
    arms = Arms(
        model,
        clip,
        _encoder(clip, plans, entries, sealed, more),
        plans,
        entries,
        sealed=sealed,
        origin=loaded_from,
        at_use=locks[0].at_use,
        identity=identity_of(loaded_from, patchers, found, safety, tasks=locks[0].tasks),
    )
    forwards = counted_from(sum(map(len, plans)), progress)
    function = in_function(merged[0], arms, limits, forwards)

    report = build_report(entries, ledger, found, base.name, concept, function=function)
    report |= about_base(loaded_from, safety)
    report |= {what: found for what, found in formats.items() if found}
    report |= {"other_patches": weight_free_patches(model), "on_conflict": on_conflict}
    for warning in report["base_warnings"]:
        logger.warning("Modular Merge: %s", warning)
    conflict.judge(report)
    if report["losses"]:
        lost = report["losses"]
        logger.warning(
            "Modular Merge: retained safety is out of bounds in %d measures (first: %s).",
            len(lost),
            lost[0],
        )
    whole = replace(
        locks[0],
        losses=tuple(lost_of(entries, ledger, function, plans[0], concept)),
        looks=tuple(report["looks"]),
        canary=function.canary,
        arms=arms,
    )
    locks[0] = whole
    if clip is not None and locks[1] is not None:
        prompt = next((text for module in safety for text in module.prompts), "a picture")
        locks[1] = replace(
            locks[1],
            losses=tuple(lost_of(entries, ledger, function, plans[1])),
            canary=text_canary(arms.encoder, prompt),
            encodes=weakref.ref(clip.cond_stage_model),
        )
    for patcher, lock in zip(merged, locks, strict=True):
        if lock is not None:
            lock = replace(lock, base_warnings=tuple(report["base_warnings"]))
            patcher.set_attachments(KEY, lock)
    beside = beside_of(names, ledger)
    return Merged(merged[0], merged_clip, report, beside, function.by_name(names))


def _lock(
    patcher: ModelPatcher,
    plan: Plan,
    sealed: Sealed,
    safety: Sequence[Module],
    *,
    policy: str,
) -> Lock:
    """What must stay as it is on a patched clone.

    That is all its entries, and the safety changes, which are each weight's last.
    """
    return Lock(
        entries={key: list(values) for key, values in patcher.patches.items()},
        safety={key: patcher.patches[key][-len(sealed[key]) :] for key in plan if sealed[key]},
        losses=(),  # until the report is made
        names=tuple(module.name for module in safety),
        digests=tuple(module.sha256 for module in safety),
        signers=signers(safety),
        policy=policy,
        beside=tuple(weight_free_patches(patcher)),
    )


def _encoder(
    clip, plans: Sequence[Plan], entries: Sequence[Entry], sealed: Sealed, more: Mapping
) -> object:
    """A text encoder with its changes and no lock, to see what the model will see.

    None when none is connected, and the one that came in where nothing changes it.
    """
    if clip is None or not any(plans[1].values()):
        return clip
    changed = clip.clone()
    put_on(changed.patcher, plans[1], entries, sealed, more)
    return changed
