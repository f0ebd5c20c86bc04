"""What a merge adds to the weights of one network, and how it lies there.

W* = W0 + dW_safety + sum_i w_i dW_task_i
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from comfy.model_patcher import ModelPatcher

from ..modules.errors import SafetyError
from ..options.words import amount
from .changes import Change, is_additive
from .entries import Entry
from .patches import Member, SafetyChange, TaskChanges


@dataclass(frozen=True)
class Plan:
    """The changes of each weight of a network, by module i.

    Weights that were patched before are in `changes` too, with nothing new. Once a weight was
    measured, `sealed` has its safety changes, by safety module s, in a form that does not depend on
    the weight; `projected` says how much of each of them the tasks' patch brings along, the c_s of
    projection.py.
    """

    entries: Sequence[Entry]
    changes: Mapping[str, Sequence[tuple[int, Change]]] = field(default_factory=dict)
    sealed: dict[str, dict[int, list[Change]]] = field(default_factory=dict)
    projected: dict[str, dict[int, float]] = field(default_factory=dict)

    def holds(self, s: int) -> bool:
        """Whether a safety module changes this network."""
        return any(s in by_module for by_module in self.sealed.values())

    @property
    def safety(self) -> dict[str, list[Change]]:
        """The safety changes of each weight that has any, all modules' together."""
        return {
            key: [change for changes in by_module.values() for change in changes]
            for key, by_module in self.sealed.items()
            if by_module
        }

    def put_on(self, patcher: ModelPatcher) -> None:
        """Put everything on a clone: the tasks' as one patch a weight, then the safety modules'."""
        tasks = {key: self._task_changes(patcher, key) for key in self.changes}
        _add(patcher, {key: change for key, change in tasks.items() if change})
        for s in sorted({s for by_module in self.sealed.values() for s in by_module}):
            self.put_safety_on(patcher, s)

    def put_safety_on(self, patcher: ModelPatcher, s: int) -> None:
        """Put one safety module alone on a clone: a patch for each weight that it changes."""
        name = self.entries[s].module.name
        _add(
            patcher,
            {
                key: SafetyChange(set(), (name, tuple(map(_member, by_module[s]))))
                for key, by_module in self.sealed.items()
                if s in by_module
            },
        )

    def _task_changes(self, patcher: ModelPatcher, key: str) -> TaskChanges | None:
        """All tasks' changes of a weight, and what of safety changes they must bring along.

        Changes that depend on W0 must see it: what already sat on the weight moves into the same
        patch.
        """
        members = [
            _member(change)
            for i, change in self.changes[key]
            if not self.entries[i].is_safety and change.strength != 0.0
        ]
        for s, part in self.projected.get(key, {}).items():
            members += [_member(change, part) for change in self.sealed[key][s]]
        if not members:
            return None
        relative = any(not is_additive(value) for _, value, *_ in members)
        before = patcher.patches.pop(key, []) if relative else []
        return TaskChanges(set(), (before, tuple(members)))


def _add(patcher: ModelPatcher, patches: Mapping[str, TaskChanges | SafetyChange]) -> None:
    lost = patches.keys() - set(patcher.add_patches(patches))
    if lost:
        raise SafetyError(
            f"ComfyUI refused {len(lost)} of {amount(len(patches), 'change')} (first: {min(lost)})."
            " Load the model again and retry."
        )


def _member(change: Change, part: float = 1.0) -> Member:
    """A change, or a part of it, as adapters keep it."""
    return (part * change.strength, change.value, change.offset, change.function)
