"""The lock on a merged model: what must still be on it, and what must not, when sampling starts."""

import logging
from dataclasses import dataclass

from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrappersMP

from .measure import THRESHOLD

logger = logging.getLogger(__name__)
KEY = "msl_lock"


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


def foreign_message(found: list[dict[str, str]]) -> str:
    first = found[0]
    return (
        f"{len(found)} changes on this model can't be measured against its loaded weights (first: {first['kind']} "
        f"{first['name']}). Remove them, or load their file with Load Task LoRA into Modular Merge, "
        "or set foreign_changes to report."
    )


@dataclass(frozen=True)
class Lock:
    """What Modular Merge left on a model: every patch entry by weight, and which of them are the safety change's."""

    entries: dict[str, list[tuple]]
    safety: dict[str, list[tuple]]
    patches_uuid: object
    retained: float
    names: tuple[str, ...]
    policy: str

    def faults(self, patcher: ModelPatcher) -> list[str]:
        """What undid or may undo the safety change since the merge; empty when nothing did."""
        found = [f"{item['kind']} {item['name']}" for item in foreign_changes(patcher)]
        if self.retained < THRESHOLD:
            found.append(f"retained safety is {self.retained:.3f}, under {THRESHOLD}")
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

    def check(self, patcher: ModelPatcher) -> None:
        """Raise SafetyError, or only log under the policy `report`, when the safety change is not whole."""
        found = self.faults(patcher)
        if not found:
            return
        message = (
            f"The safety module ({', '.join(self.names)}) is not whole on the model that samples: {len(found)} findings "
            f"(first: {found[0]}). Put other LoRAs into Modular Merge with Load Task LoRA, and nothing that changes "
            "weights after it."
        )
        if self.policy == "refuse":
            raise SafetyError(message)
        logger.warning("%s", message)


def fasten(
    patcher: ModelPatcher, safety: dict[str, list[tuple]], retained: float, names: tuple[str, ...], policy: str
) -> None:
    """Put the lock on a merged model; it survives clones and is asked at every sampling, before the weights load.

    `safety` holds the patch entries of the safety change by weight, `names` its files.
    """
    entries = {key: list(values) for key, values in patcher.patches.items()}
    patcher.set_attachments(KEY, Lock(entries, safety, patcher.patches_uuid, retained, names, policy))
    patcher.remove_wrappers_with_key(WrappersMP.OUTER_SAMPLE, KEY)
    patcher.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, KEY, _at_sampling)


def _at_sampling(executor, *args, **kwargs):
    patcher = executor.class_obj.model_patcher
    lock = patcher.get_attachment(KEY)
    if lock is None:
        raise SafetyError("The lock of the safety module was taken off this model. Use the model that Modular Merge gives.")
    lock.check(patcher)
    return executor(*args, **kwargs)
