"""Where a merge's changes lie: by weight, and then on a clone, the safety modules' last."""

from collections.abc import Mapping, Sequence

from comfy.model_patcher import ModelPatcher

from ..modules.errors import SafetyError
from .changes import Change, is_additive
from .coverage import target_key
from .entries import Entry, change_of
from .patches import SafetyChange, TaskChanges

# by weight: the changes on it, each with its module's number
Plan = dict[str, list[tuple[int, Change]]]
# by weight and safety module: its changes, none of which depends on the weight
Sealed = dict[str, dict[int, list[Change]]]


def plan_of(patcher: ModelPatcher, entries: Sequence[Entry], is_model: bool) -> Plan:
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


def put_on(
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
