"""The lock on a merged model: what must still be on it, and what must not, when sampling starts."""

import logging
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from weakref import WeakKeyDictionary

from comfy.model_patcher import LowVramPatch, ModelPatcher
from comfy.patcher_extension import CallbacksMP, WrappersMP
from comfy.utils import get_attr

from ..host.bases import UNKNOWN, Origin
from ..modules.errors import SafetyError
from .findings import BESIDE, findings
from .on_model import KEY, does_nothing, foreign_changes, weight_free_patches
from .rounding import hold_at_use

logger = logging.getLogger(__name__)
# of the operator, asked whenever something samples or encodes
demands: set[Callable[["Lock"], None]] = set()
# By network: the patches it was loaded with.
_loaded: WeakKeyDictionary[object, dict[str, list[tuple]]] = WeakKeyDictionary()


@dataclass(frozen=True)
class Lock:
    """Every patch entry that Modular Merge left on a model, by weight, and which are for safety.

    `losses` says what was under the thresholds of retained safety when the modules were merged.
    `encodes` gives the network that encodes with a text encoder, None for a diffusion model: the
    host keeps it apart from the one that is patched.
    """

    entries: dict[str, list[tuple]]
    safety: dict[str, list[tuple]]
    losses: tuple[str, ...]
    names: tuple[str, ...]
    digests: tuple[str, ...]
    signers: tuple[str | None, ...]  # the public key that signed each module; None: nobody
    policy: str
    # what was on the model when it was merged and leaves weights alone
    beside: Sequence[dict[str, str]] = ()
    encodes: Callable[[], object | None] = lambda: None
    base: Origin = UNKNOWN
    at_use: frozenset[str] = frozenset()  # weights that are patched when they are used
    base_warnings: tuple[str, ...] = ()  # of the modules that were trained on another base

    def faults(self, patcher: ModelPatcher) -> list[str]:
        """What undid or may undo a safety change since the merge; empty when nothing did."""
        found = [f"{item['kind']} {item['name']}" for item in foreign_changes(patcher)]
        found += self.losses
        found += [
            f"replaced module {key}"
            for key in patcher.object_patches
            if not key.startswith("diffusion_model")
            and any(held.startswith(f"{key}.") for held in self.safety)
        ]
        for key in self.entries.keys() | patcher.patches.keys():
            what = self._fault(key, patcher.patches.get(key, []))
            if what:
                found.append(f"{what} {key}")
        return found

    def _fault(self, key: str, now: list[tuple]) -> str | None:
        """What happened to the patch entries of one weight since the merge."""
        then = self.entries.get(key, [])
        if len(now) > len(then):
            added = (entry for entry in now[len(then) :] if not does_nothing(entry))
            now = [*now[: len(then)], *added]
        if len(now) == len(then) and all(map(operator.is_, now, then)):
            return None
        if any(all(entry is not other for other in now) for entry in self.safety.get(key, [])):
            return "the safety change is gone from"
        strength_model_at = 2  # of a patch entry: it scales everything before it
        if any(entry[strength_model_at] != 1.0 for entry in now[len(then) :]):
            return "a later node scales"
        return "a later node changes"

    def not_computed(self, patcher: ModelPatcher) -> list[str]:
        """Weights whose safety change is in a loaded model's list and on nothing that computes.

        The host patches a weight in memory, from the list of the clone that loaded it, or when it
        is used. A clone that shares the mark of the list (`patches_uuid`) and not the list leaves
        its weights to all others.
        """
        loaded = _loaded.get(patcher.model, {})
        return [key for key in self.safety if not self._computes(patcher, key, loaded.get(key, ()))]

    def _computes(self, patcher: ModelPatcher, key: str, loaded: Sequence[tuple]) -> bool:
        if key in patcher.backup and not patcher.is_dynamic():
            return self._holds(key, loaded)
        place, _, name = key.rpartition(".")
        module = get_attr(patcher.model, place)
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

    def _holds(self, key: str, entries: Sequence[tuple]) -> bool:
        return all(any(entry is each for each in entries) for entry in self.safety[key])

    def check(self, patcher: ModelPatcher, beside: Sequence[ModelPatcher] = ()) -> None:
        """Raise SafetyError when a safety change is not whole.

        Under the policy `report` it is only noted. `beside` are other models that the same sampling
        runs: they must carry a lock too.
        """
        self.ask_operator()
        found = self.faults(patcher)
        for other in beside:
            lock = other.get_attachment(KEY)
            if lock is None or set(lock.digests) != set(self.digests):
                found.append("a second model without these safety modules")
            else:
                found += lock.faults(other)
        self.judge(
            found,
            "Put other LoRAs into Modular Merge with Load Task LoRA, and nothing that changes"
            " weights after it.",
        )

    def ask_operator(self) -> None:
        """Raise what the operator's demands raise, whatever the policy `foreign_changes`."""
        for demand in demands:
            demand(self)

    def check_loaded(self, patcher: ModelPatcher) -> None:
        """Raise SafetyError when a loaded model computes without a safety change.

        It is raised whatever the policy.
        """
        network = self.encodes()
        if network is not None and network is not patcher.model:
            raise SafetyError(
                f"The safety module ({', '.join(self.names)}) is on a text encoder that does not"
                " encode: Select CLIP Device moves the patches to another one. Leave it out, or"
                " start ComfyUI with the device."
            )
        lost = self.not_computed(patcher)
        if lost:
            raise SafetyError(
                f"The safety module ({', '.join(self.names)}) is listed on this model, and"
                f" {len(lost)} of its {len(self.safety)} changes are on no weight that computes"
                f" (first: {lost[0]}): it was loaded without them. Unload all models, and remove"
                " what changes the patches of a model behind ComfyUI's back."
            )

    def judge(self, found: Sequence[str], way_out: str) -> None:
        """Raise SafetyError for what was found.

        Under the policy `report` it is noted for the log and the audits instead.
        """
        if not found:
            findings.note()
            return
        message = (
            f"The safety module ({', '.join(self.names)}) is not whole on the model that samples:"
            f" {len(found)} findings (first: {found[0]}). {way_out}"
        )
        if self.policy == "refuse":
            raise SafetyError(message)
        findings.note(message)
        logger.warning("%s", message)


def fasten(patcher: ModelPatcher, lock: Lock, is_clip: bool = False) -> None:
    """Put a lock on a merged model, where it survives clones.

    It is asked at every sampling, before the weights load and again when they are loaded. A text
    encoder has no sampling: it is asked when the host applies its hooks, which it does before
    everything that is encoded, whether the weights are loaded anew or stayed.
    """
    patcher.set_attachments(KEY, lock)
    patcher.add_callback_with_key(CallbacksMP.ON_LOAD, KEY, _at_loading)
    if is_clip:
        patcher.add_callback_with_key(CallbacksMP.ON_APPLY_HOOKS, KEY, _at_encoding)
    else:
        patcher.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, KEY, _at_sampling)
        patcher.add_callback_with_key(CallbacksMP.ON_PRE_RUN, KEY, _at_running)


def _lock_of(patcher: ModelPatcher) -> Lock:
    lock = patcher.get_attachment(KEY)
    if lock is None:
        raise SafetyError(
            "The lock of the safety module was taken off this model. Use the model that Modular"
            " Merge gives."
        )
    return lock


def _at_sampling(executor, *args, **kwargs):
    guider = executor.class_obj
    beside = [
        each
        for each in vars(guider).values()
        if isinstance(each, ModelPatcher) and each is not guider.model_patcher
    ]
    lock = _lock_of(guider.model_patcher)
    lock.check(guider.model_patcher, beside)
    later = [each for each in weight_free_patches(guider.model_patcher) if each not in lock.beside]
    findings.note(*(f"{each['kind']} {each['name']}" for each in later), kind=BESIDE)
    return executor(*args, **kwargs)


def _at_running(patcher: ModelPatcher) -> None:
    _lock_of(patcher).check_loaded(patcher)


def _at_loading(patcher: ModelPatcher, *args, **kwargs) -> None:
    _loaded[patcher.model] = {key: list(entries) for key, entries in patcher.patches.items()}
    hold_at_use(patcher, _lock_of(patcher).at_use)


def _at_encoding(patcher: ModelPatcher, *args, **kwargs) -> None:
    lock = _lock_of(patcher)
    try:
        lock.check(patcher)
        lock.check_loaded(patcher)
    except SafetyError:
        patcher.detach()  # the weights as they were: nothing encodes with these
        raise
