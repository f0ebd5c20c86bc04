"""The networks of a merge: the diffusion model, and the text encoder where one is connected."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from operator import attrgetter
from typing import Any, Generic, TypeVar

from comfy.model_patcher import ModelPatcher

from ..host.comfy_types import Clip
from .changes import Change
from .coverage import target_key
from .entries import Entry, change_of
from .on_model import MERGED
from .plan import Plan
from .rounding import Formats, rounded

Given = TypeVar("Given", ModelPatcher, Clip)


@dataclass
class Network(Generic[Given]):
    """One network: what came in, what is added to its weights, and a clone with all of it on.

    `rounding` is the name in the report of what the host's rounding does, by format.
    """

    given: Given
    plan: Plan
    rounding: str
    merged: Given = field(init=False)
    formats: Formats = field(default_factory=dict)
    at_use: frozenset[str] = frozenset()  # weights that are patched when they are used

    @property
    def patcher(self) -> ModelPatcher:
        return patcher_of(self.given)

    def changed(self) -> Given:
        """A clone with everything on it, and no lock."""
        clone = self.given.clone()
        self.plan.put_on(patcher_of(clone))
        return clone

    def put_on(self) -> None:
        """Make `merged`, and see what the host's rounding leaves of its safety changes."""
        self.merged = self.changed()
        patcher = patcher_of(self.merged)
        patcher.set_attachments(MERGED, True)
        self.formats, self.at_use = rounded(patcher, self.plan.safety)


@dataclass
class Networks:
    """All of a merge; `texts` has the text encoder, if there is one."""

    model: Network[ModelPatcher]
    texts: Sequence[Network[Clip]]

    def __iter__(self) -> Iterator[Network[Any]]:
        return iter((self.model, *self.texts))

    @property
    def patchers(self) -> list[ModelPatcher]:
        """As they came in."""
        return [each.patcher for each in self]

    @property
    def weights(self) -> int:
        """How many there are to be measured."""
        return sum(len(each.plan.changes) for each in self)

    @property
    def clip(self) -> Clip | None:
        """The text encoder as it came in."""
        return next((text.given for text in self.texts), None)

    @cached_property
    def encoder(self) -> Clip | None:
        """The text encoder with everything on it and no lock: what the model will see.

        The one that came in where nothing changes it. To be asked once it was measured.
        """
        changed = (
            text.changed() if any(text.plan.changes.values()) else text.given for text in self.texts
        )
        return next(changed, None)

    @property
    def merged_clip(self) -> Clip | None:
        return next((text.merged for text in self.texts), None)


def networks_of(model: ModelPatcher, clip: Clip | None, entries: Sequence[Entry]) -> Networks:
    """The networks with what the modules change of each: a task i by its w_i there."""
    texts = [] if clip is None else [clip]
    return Networks(
        Network(model, _plan(model, entries, "strength_model"), "rounding"),
        [
            Network(
                each,
                _plan(each.patcher, entries, "strength_clip"),
                "rounding_of_the_text_encoder",
            )
            for each in texts
        ],
    )


def patcher_of(given: ModelPatcher | Clip) -> ModelPatcher:
    """What holds the weights of a MODEL, which is one, or of a CLIP."""
    return given if isinstance(given, ModelPatcher) else given.patcher


def _plan(patcher: ModelPatcher, entries: Sequence[Entry], strength: str) -> Plan:
    parameters = patcher.model.state_dict().keys()
    changes: dict[str, list[tuple[int, Change]]] = {key: [] for key in patcher.patches}
    strength_of = attrgetter(strength)
    for i, entry in enumerate(entries):
        for target, value in entry.coverage.patches.items():
            if target_key(target) in parameters:
                changes.setdefault(target_key(target), []).append(
                    (i, change_of(target, value, strength_of(entry)))
                )
    return Plan(entries, changes)
