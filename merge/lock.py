"""The lock on a merged model: what must still be on it, and what must not, when sampling starts."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

from comfy.model_patcher import LowVramPatch, ModelPatcher
from comfy.utils import get_attr

from ..function.canary import Canary, TextCanary
from ..host.bases import UNKNOWN, Origin
from ..host.comfy_types import Patch
from ..host.digest import NOT_DIGESTED
from ..modules.errors import SafetyError
from ..options.words import amount
from .arms import Arms
from .findings import findings
from .on_model import KEY, does_nothing, foreign_changes, left_on

logger = logging.getLogger(__name__)
# in the host's patch entries; the latter scales everything before it
VALUE_AT, STRENGTH_MODEL_AT = 1, 2
# the operator's, made whenever something samples or encodes
operator_checks: set[Callable[["Lock"], None]] = set()
# Whoever is in it holds the policy `foreign_changes` at refuse, whatever a merge says.
strict: set[str] = set()
LEFT = (
    "Another model left it there, as a bypass LoRA does. Unload models and the execution cache, so"
    " that the base loads again, and use Load Task LoRA in place of Load LoRA (Bypass)."
)
GIVES = (
    "Something other than these LoRAs changed what the network computes since Modular Merge"
    " measured it. Unload models and the execution cache. If this comes back, remove the custom"
    " node that causes it."
)
# By network: the patches it was loaded with.
loaded_with: WeakKeyDictionary[object, dict[str, list[Patch]]] = WeakKeyDictionary()


def nobody() -> None:
    """The network that encodes with a diffusion model: none does."""


@dataclass(frozen=True)
class Lock:
    """Every patch entry that Modular Merge left on a model, by weight, and which are for safety.

    `losses` says what was under the thresholds of retained safety when the modules were merged.
    `encodes` gives the network that encodes with a text encoder, None for a diffusion model: the
    host keeps it apart from the one that is patched.
    """

    entries: dict[str, list[Patch]]
    safety: dict[str, list[Patch]]
    losses: tuple[str, ...]
    names: tuple[str, ...]
    digests: tuple[str, ...]
    signers: tuple[str | None, ...]  # the public key that signed each module; None: nobody
    policy: str
    # what was on the model when it was merged and leaves weights alone
    other_patches: Sequence[dict[str, str]] = ()
    encodes: Callable[[], object | None] = nobody
    base: Origin = UNKNOWN
    at_use: frozenset[str] = frozenset()  # weights that are patched when they are used
    base_warnings: tuple[str, ...] = ()  # of the modules that were trained on another base
    tasks: tuple[object, ...] = ()  # what else is on the model: task modules and earlier patches
    looks: tuple[str, ...] = ()  # what the audits of its pictures are told
    # what the network gave when it was merged
    canary: Canary | TextCanary | None = field(default=None, metadata=NOT_DIGESTED)
    # what it was merged of, for a probe
    arms: Arms | None = field(default=None, metadata=NOT_DIGESTED)

    def faults(self, patcher: ModelPatcher) -> list[str]:
        """What undid or may undo a safety change since the merge; empty when nothing did."""
        return [*self.losses, *self.changes(patcher)]

    def changes(self, patcher: ModelPatcher) -> list[str]:
        """What was added to or removed from a patcher since the merge, in words."""
        found = [f"{item['kind']} {item['name']}" for item in foreign_changes(patcher)]
        found += [
            f"replaced module {key}"
            for key in patcher.object_patches
            if not key.startswith("diffusion_model")
            and any(held.startswith(f"{key}.") for held in self.safety)
        ]
        for key in self.entries | patcher.patches:  # in their order: what is found is told so
            what = self._fault(key, patcher.patches.get(key, []))
            if what:
                found.append(f"{what} {key}")
        return found

    def _fault(self, key: str, now: list[Patch]) -> str | None:
        """What happened to the patch entries of one weight since the merge."""
        then = self.entries.get(key, [])
        if len(now) > len(then):
            added = (entry for entry in now[len(then) :] if not does_nothing(entry))
            now = [*now[: len(then)], *added]
        if len(now) == len(then) and all(map(_is_same, now, then)):
            return None
        if not self._holds(key, now):
            return "the safety LoRA's change is gone from"
        if any(entry[STRENGTH_MODEL_AT] != 1.0 for entry in now[len(then) :]):
            return "a later node scales"
        return "a later node changes"

    def not_computed(self, patcher: ModelPatcher) -> list[str]:
        """Weights whose safety change is in a loaded model's list and on nothing that computes.

        The host patches a weight in memory, from the list of the clone that loaded it, or when it
        is used. A clone that shares the mark of the list (`patches_uuid`) and not the list leaves
        its weights to all others.
        """
        loaded = loaded_with.get(patcher.model, {})
        return [key for key in self.safety if not self._computes(patcher, key, loaded.get(key, ()))]

    def _computes(self, patcher: ModelPatcher, key: str, loaded: Sequence[Patch]) -> bool:
        if key in patcher.backup and not patcher.is_dynamic():
            return self._holds(key, loaded)
        place, _, name = key.rpartition(".")
        try:
            module = get_attr(patcher.model, place)
        except AttributeError:  # another module stands in the place of one above it
            return False
        patches = [
            *getattr(module, f"{name}_function", ()),
            getattr(module, f"{name}_lowvram_function", None),
        ]
        for patch in patches:
            if isinstance(patch, LowVramPatch) and patch.key == key:
                return self._holds(key, patch.patches.get(key, ()))
        # a dynamic patcher patches small weights in memory, and none of modules that are not
        # ComfyUI's own
        return (
            key in patcher.backup
            and hasattr(module, "comfy_cast_weights")
            and self._holds(key, loaded)
        )

    def _holds(self, key: str, entries: Sequence[Patch]) -> bool:
        return all(
            any(_is_same(entry, each) for each in entries) for entry in self.safety.get(key, ())
        )

    def check(self, patcher: ModelPatcher, others: Sequence[ModelPatcher] = ()) -> None:
        """Raise SafetyError when a safety change is not whole.

        Under the policy `report` it is only noted. `others` are models that the same sampling
        runs: they must carry a lock too, of a merge of the same on the same base.
        """
        self.ask_operator()
        found = self.faults(patcher)
        for other in others:
            lock = other.get_attachment(KEY)
            if lock is None or set(lock.digests) != set(self.digests):
                found.append("a second model without these safety LoRAs")
                continue
            # guidance leads away from what the second model has more of, safety too
            if lock.tasks != self.tasks:
                found.append("a second model with other changes beside the safety LoRAs")
            if patcher.model is not other.model and not self.base.is_same(lock.base):
                found.append("a second model on another base, or on an unknown one")
            found += lock.faults(other)
        self.judge(
            found,
            "Load other LoRAs with Load Task LoRA into Modular Merge, merge models before it, and"
            " put nothing after it that changes weights.",
        )

    def ask_operator(self) -> None:
        """Raise what the operator's checks raise, whatever the policy `foreign_changes`."""
        for check in operator_checks:
            check(self)

    def check_loaded(self, patcher: ModelPatcher) -> None:
        """`check_computes`, and judge what else the network runs, and what it gives."""
        self.check_computes(patcher)
        left = left_behind(patcher)
        if left:
            self.judge(left, LEFT)
        # what was changed in plain sight was judged before anything was loaded
        if self.canary is not None and not self.changes(patcher):
            gives = self.canary.faults(patcher)
            if gives:
                self.judge(gives, GIVES)

    def check_computes(self, patcher: ModelPatcher) -> None:
        """Raise SafetyError, under `report` too, when a loaded model lacks a safety change."""
        network = self.encodes()
        if network is not None and network is not patcher.model:
            raise SafetyError(
                f"The safety LoRA ({', '.join(self.names)}) is not on the text encoder that is"
                " used: Select CLIP Device moved it. Remove that node, or choose the device when"
                " you start ComfyUI."
            )
        lost = self.not_computed(patcher)
        if lost:
            raise SafetyError(
                f"The safety LoRA ({', '.join(self.names)}) is listed on this model, but is missing"
                " from the loaded weights. Unload all models, and remove custom nodes that edit a"
                f" model's patches directly. ({len(lost)} of its"
                f" {amount(len(self.safety), 'change')} are not there, first: {lost[0]}.)"
            )

    def judge(self, found: Sequence[str], way_out: str) -> None:
        """Raise SafetyError for what was found.

        Under the policy `report`, where nobody is strict, it is noted for the log and the audits.
        """
        if not found:
            findings.note(*self.looks)
            return
        message = (
            f"The safety LoRA ({', '.join(self.names)}) is not whole on the model that samples."
            f" {way_out} ({amount(len(found), 'finding')}, first: {found[0]}.)"
        )
        if self.policy != "report" or strict:
            raise SafetyError(message)
        findings.note(*self.looks, message)
        logger.warning("%s", message)


def _is_same(entry: Patch, other: Patch) -> bool:
    """Whether two patch entries are one, or hold the same things.

    Tensors and functions are compared by identity, numbers and offsets by value.
    """
    if len(entry) != len(other):
        return False
    return all(
        one is two or (isinstance(one, float | int | tuple) and at != VALUE_AT and one == two)
        for at, (one, two) in enumerate(zip(entry, other, strict=True))
    )


def left_behind(patcher: ModelPatcher) -> list[str]:
    """What runs in a loaded model's network beside its own code, in words."""
    return [f"code left on the network in {name}" for name in left_on(patcher.model)]
