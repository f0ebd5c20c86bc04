"""The operator's policy `require_lock`: no diffusion model runs in this ComfyUI without an intact lock on it.

Nothing in the host can refuse a sampling for all nodes, so with this policy, and only with it, `BaseModel.apply_model`,
through which every sampler of the host runs a model, first asks for the lock (docs/threat-model.md says what gets past it).
"""

import functools
import logging
from collections.abc import Callable

from comfy.model_base import BaseModel

from ..modular import guard
from ..modular.guard import SafetyError
from .settings import FILE, Operator, SettingsError, operator

logger = logging.getLogger(__name__)


def install() -> Callable[[], None]:
    """Hold the policy from now on, as the settings say at this moment; returns what takes it away again.

    Settings with a mistake hold it too: nobody can tell whether they meant to.
    """
    try:
        wanted, mistake = operator(), None
    except SettingsError as error:
        wanted, mistake = Operator(require_lock=True), str(error)
    if not wanted.require_lock:
        return lambda: None
    original = BaseModel.apply_model

    @functools.wraps(original)
    def apply_model(self, *args, **kwargs):
        if mistake:
            raise SettingsError(mistake)
        _check(self, wanted)
        return original(self, *args, **kwargs)

    BaseModel.apply_model = apply_model
    logger.info("%s: no model samples without a safety module", FILE)

    def taken_away() -> None:
        BaseModel.apply_model = original

    return taken_away


def _check(model: BaseModel, wanted: Operator) -> None:
    patcher = model.current_patcher
    lock = patcher.get_attachment(guard.KEY) if patcher is not None else None
    if lock is None:
        raise SafetyError(
            "This ComfyUI samples only from models that went through Modular Merge with a safety module (require_lock in "
            f"{FILE}), and this one did not. Put Modular Merge between its loader and the sampler."
        )
    found = lock.faults(patcher)
    if found:
        raise SafetyError(
            f"The safety module is not whole on the model that samples: {len(found)} findings (first: {found[0]})."
        )
    allowed = wanted.allowed_safety
    strangers = [name for name, digest in zip(lock.names, lock.digests, strict=True) if digest not in allowed]
    if allowed and strangers:
        raise SafetyError(f"{strangers[0]} is none of the {len(allowed)} safety modules that this ComfyUI allows ({FILE}).")
