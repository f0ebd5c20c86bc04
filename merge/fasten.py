"""Where the lock of a merged model is asked: at every sampling, loading and encoding."""

from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import CallbacksMP, WrappersMP

from ..modules.errors import SafetyError
from .findings import BESIDE, findings
from .lock import Lock, loaded_with
from .on_model import KEY, weight_free_patches
from .rounding import hold_at_use


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
    loaded_with[patcher.model] = {key: list(entries) for key, entries in patcher.patches.items()}
    hold_at_use(patcher, _lock_of(patcher).at_use)


def _at_encoding(patcher: ModelPatcher, *args, **kwargs) -> None:
    lock = _lock_of(patcher)
    try:
        lock.check(patcher)
        lock.check_loaded(patcher)
    except SafetyError:
        patcher.detach()  # the weights as they were: nothing encodes with these
        raise
