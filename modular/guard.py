"""The lock on a merged model: what must still be on it, and what must not, when sampling starts."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import CallbacksMP, WrappersMP

from .measure import LAYER_THRESHOLD, THRESHOLD

logger = logging.getLogger(__name__)
KEY = "msl_lock"
standing: dict[tuple[str, ...], str] = {}  # what the last check of a model with these safety modules found, under `report`


class SafetyError(RuntimeError):
    """Something would weaken the safety module; the message names it and the way out."""


def foreign_changes(patcher: ModelPatcher) -> list[dict[str, str]]:
    """What sits on a model beside plain weight patches and may change its weights: kind and name of each."""
    found = [{"kind": "bypass or injected module", "name": str(key)} for key in patcher.injections]
    found += [{"kind": "hook weights", "name": str(key)} for hook in patcher.hook_patches.values() for key in hook]
    found += [{"kind": "weight wrapper", "name": str(key)} for key in patcher.weight_wrapper_patches]
    found += [
        {"kind": "replaced module", "name": key}
        for key in patcher.object_patches
        if key == "diffusion_model" or key.startswith("diffusion_model.")
    ]
    if patcher.forced_hooks is not None:
        found.append({"kind": "hook weights", "name": "hooks set on the text encoder"})
    return found


def weight_free_patches(patcher: ModelPatcher) -> list[dict[str, str]]:
    """What sits on a model and leaves its weights alone: sampling, attention and block patches, wrappers. Not refused."""
    options = patcher.model_options
    inside = options.get("transformer_options", {})
    found = [
        {"kind": "model object", "name": key} for key in patcher.object_patches if not key.startswith("diffusion_model")
    ]
    found += [{"kind": "block or attention patch", "name": str(name)} for name in inside.get("patches", {})]
    found += [{"kind": "replaced attention", "name": str(name)} for name in inside.get("patches_replace", {})]
    found += [
        {"kind": "wrapper", "name": f"{kind} {name}"}
        for kind, by_key in patcher.wrappers.items()
        for name, functions in by_key.items()
        if functions and name != KEY
    ]
    return found + [
        {"kind": "sampling function", "name": key} for key in options if key.startswith(("sampler_", "model_func"))
    ]


def foreign_message(found: list[dict[str, str]]) -> str:
    first = found[0]
    return (
        f"{len(found)} changes on this model can't be measured against its loaded weights (first: {first['kind']} "
        f"{first['name']}). Remove them, or load their file with Load Task LoRA into Modular Merge, "
        "or set foreign_changes to report."
    )


@dataclass(frozen=True)
class Lock:
    """What Modular Merge left on a model: every patch entry by weight, and which of them are the safety change's.

    `retained` is the retained safety over all weights, `by_layer` that of each.
    """

    entries: dict[str, list[tuple]]
    safety: dict[str, list[tuple]]
    patches_uuid: object
    retained: float
    by_layer: Mapping[str, float]
    names: tuple[str, ...]
    digests: tuple[str, ...]
    policy: str

    def faults(self, patcher: ModelPatcher) -> list[str]:
        """What undid or may undo the safety change since the merge; empty when nothing did."""
        found = [f"{item['kind']} {item['name']}" for item in foreign_changes(patcher)]
        if self.retained < THRESHOLD:
            found.append(f"retained safety is {self.retained:.3f}, under {THRESHOLD}")
        low = [(rho, key) for key, rho in self.by_layer.items() if rho < LAYER_THRESHOLD]
        found += [f"retained safety is {rho:.3f}, under {LAYER_THRESHOLD}, in {key}" for rho, key in sorted(low)]
        found += [
            f"replaced module {key}"
            for key in patcher.object_patches
            if not key.startswith("diffusion_model") and any(held.startswith(f"{key}.") for held in self.safety)
        ]
        if patcher.patches_uuid == self.patches_uuid:
            return found
        for key in sorted(self.safety.keys() | patcher.patches.keys()):
            what = self._fault(key, patcher.patches.get(key, []))
            if what:
                found.append(f"{what} {key}")
        return found

    def _fault(self, key: str, now: list[tuple]) -> str | None:
        """What happened to the patch entries of one weight since the merge."""
        then = self.entries.get(key, [])
        if len(now) == len(then) and all(a is b for a, b in zip(now, then, strict=True)):
            return None
        if any(all(entry is not other for other in now) for entry in self.safety.get(key, [])):
            return "the safety change is gone from"
        strength_model_at = 2  # of a patch entry: it scales everything before it
        if any(entry[strength_model_at] != 1.0 for entry in now[len(then) :]):
            return "a later node scales"
        return "a later node changes"

    def check(self, patcher: ModelPatcher, beside: Sequence[ModelPatcher] = ()) -> None:
        """Raise SafetyError, or only log under the policy `report`, when the safety change is not whole.

        `beside` are other models that the same sampling runs: they must carry a lock too.
        """
        found = self.faults(patcher)
        for other in beside:
            lock = other.get_attachment(KEY)
            found += ["a second model without a safety module"] if lock is None else lock.faults(other)
        if not found:
            standing.pop(self.names, None)
            return
        message = (
            f"The safety module ({', '.join(self.names)}) is not whole on the model that samples: {len(found)} findings "
            f"(first: {found[0]}). Put other LoRAs into Modular Merge with Load Task LoRA, and nothing that changes "
            "weights after it."
        )
        if self.policy == "refuse":
            raise SafetyError(message)
        standing[self.names] = message
        logger.warning("%s", message)


def fasten(patcher: ModelPatcher, lock: Lock, is_clip: bool = False) -> None:
    """Put a lock on a merged model, where it survives clones.

    It is asked at every sampling, before the weights load. A text encoder has no sampling: it is asked when its weights
    load, which any change of them makes necessary.
    """
    patcher.set_attachments(KEY, lock)
    if is_clip:
        patcher.remove_callbacks_with_key(CallbacksMP.ON_LOAD, KEY)
        patcher.add_callback_with_key(CallbacksMP.ON_LOAD, KEY, _at_loading)
    else:
        patcher.remove_wrappers_with_key(WrappersMP.OUTER_SAMPLE, KEY)
        patcher.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, KEY, _at_sampling)


def _lock_of(patcher: ModelPatcher) -> Lock:
    lock = patcher.get_attachment(KEY)
    if lock is None:
        raise SafetyError("The lock of the safety module was taken off this model. Use the model that Modular Merge gives.")
    return lock


def _at_sampling(executor, *args, **kwargs):
    guider = executor.class_obj
    beside = [each for each in vars(guider).values() if isinstance(each, ModelPatcher) and each is not guider.model_patcher]
    _lock_of(guider.model_patcher).check(guider.model_patcher, beside)
    return executor(*args, **kwargs)


def _at_loading(patcher: ModelPatcher, *args, **kwargs) -> None:
    try:
        _lock_of(patcher).check(patcher)
    except SafetyError:
        patcher.detach()  # the weights as they were: nothing encodes with these
        raise
