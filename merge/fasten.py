"""Where the lock of a merged model is asked: at every sampling, loading and encoding."""

import json
from typing import Any

from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import CallbacksMP, WrappersMP

from ..modules.errors import SafetyError
from .about import about_locked
from .findings import HELD, OTHER_PATCHES, findings
from .lock import Lock, loaded_with
from .on_model import KEY, weight_free_patches
from .rounding import hold_at_use
from .watchers import refusing, samplings


def load_as_held(patcher: ModelPatcher, at_use: frozenset[str]) -> ModelPatcher:
    """The merged model itself, which loads as its lock will hold it until that is fastened."""

    def at_loading(patcher: ModelPatcher, *args: object, **kwargs: object) -> None:
        _loaded(patcher, at_use)

    patcher.add_callback_with_key(CallbacksMP.ON_LOAD, KEY, at_loading)
    return patcher


def fasten(patcher: ModelPatcher, lock: Lock, is_clip: bool = False) -> None:
    """Put a lock on a merged model, where it survives clones.

    It is asked at every sampling, before the weights load and again when they are loaded. A text
    encoder has no sampling: it is asked when the host applies its hooks, which it does before
    everything that is encoded, whether the weights are loaded again or stayed.
    """
    patcher.set_attachments(KEY, lock)
    patcher.remove_callbacks_with_key(CallbacksMP.ON_LOAD, KEY)
    patcher.add_callback_with_key(CallbacksMP.ON_LOAD, KEY, _at_loading)
    if is_clip:
        patcher.add_callback_with_key(CallbacksMP.ON_APPLY_HOOKS, KEY, _at_encoding)
    else:
        patcher.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, KEY, _at_sampling)
        patcher.add_callback_with_key(CallbacksMP.ON_PRE_RUN, KEY, _at_running)


def _lock_of(patcher: ModelPatcher) -> Lock:
    lock: Lock | None = patcher.get_attachment(KEY)
    if lock is None:
        raise SafetyError(
            "The safety LoRA's lock was taken off this model. Use the model that comes out of"
            " Modular Merge."
        )
    return lock


def _at_sampling(executor: Any, *args: object, **kwargs: object) -> object:
    with refusing():
        lock = _checked(executor.class_obj)
        for each in samplings:
            each(lock)
        return executor(*args, **kwargs)


def _checked(guider: Any) -> Lock:
    """The lock of what a guider samples with, which found nothing, or was told to report only."""
    others = [
        each
        for each in vars(guider).values()
        if isinstance(each, ModelPatcher) and each is not guider.model_patcher
    ]
    lock = _lock_of(guider.model_patcher)
    findings.note(json.dumps(about_locked(lock)), kind=HELD)
    lock.check(guider.model_patcher, others)
    now = weight_free_patches(guider.model_patcher)
    later = [each for each in now if each not in lock.other_patches]
    findings.note(*(f"{each['kind']} {each['name']}" for each in later), kind=OTHER_PATCHES)
    return lock


def _at_running(patcher: ModelPatcher) -> None:
    _lock_of(patcher).check_loaded(patcher)


def _at_loading(patcher: ModelPatcher, *args: object, **kwargs: object) -> None:
    _loaded(patcher, _lock_of(patcher).at_use)


def _loaded(patcher: ModelPatcher, at_use: frozenset[str]) -> None:
    loaded_with[patcher.model] = {key: list(entries) for key, entries in patcher.patches.items()}
    hold_at_use(patcher, at_use)


def _at_encoding(patcher: ModelPatcher, *args: object, **kwargs: object) -> None:
    lock = _lock_of(patcher)
    try:
        with refusing():
            lock.check(patcher)
            lock.check_loaded(patcher)
    except SafetyError:
        patcher.detach()  # the weights as they were: nothing encodes with these
        raise
