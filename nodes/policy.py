"""The operator's policy: whose safety LoRAs sample, and whether a model needs an intact lock.

With `require_lock` no model samples without one. Every lock is asked at every sampling who signed
its safety LoRAs, for what was merged before `trusted_keys` were set and for what comes from no
file, as one that is being trained. Nothing in the host can refuse a sampling for all nodes, so with
`require_lock`, and only with it, `BaseModel.apply_model`, through which every sampler of the host
runs a model, first asks for the lock and what computes (docs/threat-model.md says what gets past
it).
"""

import functools
import logging
from collections.abc import Callable, Sequence

from comfy.model_base import BaseModel
from comfy.model_patcher import ModelPatcher

from ..host.bases import UNKNOWN, as_loaded, watch
from ..merge.lock import Lock, left_behind, operator_checks, strict
from ..merge.on_model import KEY
from ..modules.errors import SafetyError
from ..modules.seal import short
from ..options.words import amount
from .passing import check_passed
from .settings import FILE, Operator, SettingsError, misplaced, operator, settings_file

logger = logging.getLogger(__name__)


def install() -> Callable[[], None]:
    """Hold the policy from now on; returns what takes it away again.

    All but `trusted_keys` is as the settings say now. Settings with a mistake hold it too: nobody
    can tell whether they meant to.
    """
    try:
        wanted, mistake = operator(), None
    except SettingsError as error:
        mistake = f"{error} No model samples until it is corrected and ComfyUI is restarted."
        wanted = Operator(require_lock=True)
        logger.error("%s", mistake)
    else:
        for each in misplaced():
            logger.error("%s is read by nothing. The settings are %s.", each, settings_file())
        if held := in_force(wanted):
            logger.info("%s is in force: %s", settings_file(), held)
    operator_checks.add(check_signers)
    if not wanted.require_lock:
        return lambda: operator_checks.discard(check_signers)
    original = BaseModel.apply_model
    strict.add(FILE)

    @functools.wraps(original)
    def apply_model(self, *args, **kwargs):
        if mistake:
            raise SettingsError(mistake)
        _check(self, wanted)
        return original(self, *args, **kwargs)

    BaseModel.apply_model = apply_model
    unwatched = watch() if wanted.allowed_bases else lambda: None

    def taken_away() -> None:
        BaseModel.apply_model = original
        strict.discard(FILE)
        unwatched()
        operator_checks.discard(check_signers)

    return taken_away


def in_force(wanted: Operator) -> str:
    """Which settings differ from none at all, and what they come to; for the log."""
    names = []
    for name, field in type(wanted).model_fields.items():
        value = getattr(wanted, name)
        if value != field.default:
            counted = isinstance(value, (tuple, dict))
            names.append(f"{name} ({len(value)})" if counted else name)
    closed = "; no model samples without a safety LoRA" if wanted.require_lock else ""
    return ", ".join(names) + closed


def check_signers(lock: Lock) -> None:
    """Raise SafetyError unless the settings now trust the signer of each of a lock's modules."""
    trusted = operator().trusted_keys
    strangers = [
        name for name, key in zip(lock.names, lock.signers, strict=True) if key not in trusted
    ]
    if trusted and strangers:
        raise SafetyError(
            f"{strangers[0]} is not signed with a key that this ComfyUI trusts (trusted_keys in"
            f" {FILE}), so nothing samples with it. Ask its operator to sign it, or to trust its"
            " key."
        )


def _check(model: BaseModel, wanted: Operator) -> None:
    patcher = model.current_patcher
    lock = patcher.get_attachment(KEY) if patcher is not None else None
    if lock is None:
        raise SafetyError(
            "This ComfyUI samples only from models that went through Modular Merge with a safety"
            f" LoRA (require_lock in {FILE}), and this one did not. Put Modular Merge between its"
            " loader and the sampler."
        )
    check_signers(lock)
    lock.check_computes(patcher)
    found = lock.faults(patcher) + left_behind(patcher)
    if found:
        raise SafetyError(
            "The safety LoRA is not whole on the model that samples. Merge again, with nothing"
            f" behind it. ({amount(len(found), 'finding')}, first: {found[0]}.)"
        )
    allowed = wanted.allowed_safety
    strangers = [
        name for name, digest in zip(lock.names, lock.digests, strict=True) if digest not in allowed
    ]
    if allowed and strangers:
        raise SafetyError(
            f"{strangers[0]} is not on this ComfyUI's list of allowed safety LoRAs (allowed_safety"
            f" in {FILE}). Load one that is, or ask the operator to add this one."
        )
    if wanted.require_probe:
        check_passed(lock, operator())
    if wanted.allowed_bases:
        _check_base(lock, patcher, wanted.allowed_bases)


def _check_base(lock: Lock, patcher: ModelPatcher, allowed: Sequence[str]) -> None:
    """Raise SafetyError for a base of another digest, or of none.

    So too for a safety LoRA that names another base than this, and for a network that was read
    since the merge, for another device, from a file that is another now.
    """
    if lock.base.sha256 not in allowed:
        what = (
            f"its digest begins with {short(lock.base.sha256)}, and the merge report has all of it"
            if lock.base.sha256
            else f"its digest is not known: {lock.base.unknown}"
        )
        raise SafetyError(
            "The base of the model that samples is not on this ComfyUI's list of allowed bases"
            f" (allowed_bases in {FILE}). Load one of these, or ask the operator to add this one;"
            f" {what}."
        )
    if not lock.base.is_same(as_loaded(patcher) or UNKNOWN):
        raise SafetyError(
            "The base's file was replaced and loaded again after the merge. Load it and merge"
            " again."
        )
    if lock.base_warnings:
        raise SafetyError(lock.base_warnings[0])
