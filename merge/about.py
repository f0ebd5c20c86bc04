"""What a model is made of, for the reports of its pictures: its base, and what a merge added."""

from pathlib import Path
from typing import Any

from comfy.model_patcher import ModelPatcher

from ..host.bases import Origin, origin
from ..host.comfy_types import Clip
from ..host.weights import base_name, file_of
from .entries import Entry
from .lock import Lock
from .on_model import KEY


def about_locked(lock: Lock) -> dict[str, Any]:
    """The base and the LoRAs of a merge, JSON-ready: names, roles, digests, strengths."""
    if lock.arms is None:
        loras = [
            {"name": name, "role": "safety", "sha256": digest}
            for name, digest in zip(lock.names, lock.digests, strict=True)
        ]
        return {"base": None, "base_sha256": lock.base.sha256, "loras": loras}
    return _base(lock.arms.model, lock.base) | {
        "loras": [_lora(each) for each in lock.arms.entries]
    }


def about_model(model: ModelPatcher) -> dict[str, Any]:
    """The same of any MODEL; `patched` counts weights that something else changed."""
    lock: Lock | None = model.get_attachment(KEY)
    if lock is not None:
        return about_locked(lock)
    return _base(model, origin(model)) | {"loras": [], "patched": len(model.patches)}


def is_on_text(model: ModelPatcher, clip: Clip) -> bool:
    """Whether a CLIP holds what a locked MODEL's safety LoRAs change in a text encoder."""
    lock: Lock | None = model.get_attachment(KEY)
    if lock is None or lock.arms is None or not lock.arms.plans[1].safety:
        return True
    other: Lock | None = clip.patcher.get_attachment(KEY)
    return other is not None and set(other.digests) == set(lock.digests)


def _base(model: ModelPatcher, found: Origin) -> dict[str, Any]:
    path: Path | None = found.read[0] if found.read else file_of(model)
    return {"base": path.name if path else base_name(model), "base_sha256": found.sha256}


def _lora(entry: Entry) -> dict[str, Any]:
    return {
        "name": entry.module.name,
        "role": entry.module.role,
        "sha256": entry.module.sha256,
        "strength": entry.strength_model,
        "strength_clip": entry.strength_clip,
    }
