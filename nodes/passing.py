"""Which merges passed Probe Safety here: a record in the operator's folder, for require_probe.

It is named by all that was merged, by digests, and by what it was asked; kept.py signs it.
"""

from pathlib import Path

import torch

from ..function import kept
from ..merge.lock import Lock
from ..merge.on_model import KEY
from ..merge.probed import Probed
from ..modules.errors import NotProbed
from .settings import FILE, Operator

FORM = 1  # of what a pass means: after a change of the probe another one is asked for
NO_BASE = (
    "It can't be known whether this merge passed Probe Safety, because {why}. Load the base from"
    " one .safetensors file with a loader of ComfyUI's own, and put every LoRA into Modular Merge"
    " (require_probe in {file} asks for it)."
)


def note(model, probed: Probed, wanted: Operator) -> str:
    """Keep that a model passed where somebody demands it; what came of it, in words."""
    if not wanted.require_probe:
        return ""
    lock = model.get_attachment(KEY)
    if not probed.passed:
        return "Not recorded: it did not pass."
    if lock.arms.identity is None or probed.changed:
        return f"Not recorded, because {_why(lock)}."
    if kept.write(_name(lock, wanted), {"passed": torch.ones(1)}, {}, _folder()):
        return "Recorded: these LoRAs passed on this base."
    return "Passed, but it could not be saved: it counts until ComfyUI restarts."


def check_passed(lock: Lock, wanted: Operator) -> None:
    """Raise NotProbed unless what a lock holds passed here, under the settings as they are."""
    if lock.arms is None or lock.arms.identity is None:
        raise NotProbed(NO_BASE.format(why=_why(lock), file=FILE))
    found = kept.read(_name(lock, wanted), _folder())
    if found is None or not found[0]["passed"].item():
        raise NotProbed(
            "This ComfyUI samples only what passed Probe Safety (require_probe in"
            f" {FILE}), and these LoRAs did not, on this base, at these strengths. Put Probe"
            " Safety between Modular Merge and the sampler."
        )


def _why(lock: Lock) -> str:
    if lock.arms is not None and lock.arms.origin.sha256 is None:
        return f"the digest of its base is not known ({lock.arms.origin.unknown})"
    return "something on the model is neither the base nor a LoRA of the merge"


def _name(lock: Lock, wanted: Operator) -> str:
    return kept.digest(
        passed=FORM,
        merge=lock.arms.identity,
        limits=[wanted.limits.stop, wanted.limits.look],
        private=wanted.private.sha256,
        seed=wanted.private_seed,
    )


def _folder() -> Path:
    return kept.folder().with_name("passed")
