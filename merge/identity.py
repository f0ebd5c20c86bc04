"""What a merge is, told by digests: equal for merges of the same."""

from collections.abc import Sequence

from comfy.model_patcher import ModelPatcher

from ..host.bases import Origin
from ..modules.files import LoraFile
from .entries import Task


def tasks_of(
    patchers: Sequence[ModelPatcher], tasks: Sequence[Task], on_conflict: str
) -> tuple[object, ...]:
    """What a merge adds beside safety modules; equal for merges of the same.

    Patches from before the merge count as the same only as one object, which the locks keep alive.
    """
    before = ((key, *map(id, some)) for each in patchers for key, some in each.patches.items())
    also = sorted((each.module.sha256, each.strength_model, each.strength_clip) for each in tasks)
    return (on_conflict if also else "", *also, *sorted(before))


def identity_of(
    base: Origin,
    patchers: Sequence[ModelPatcher],
    found: Sequence[dict[str, str]],
    safety: Sequence[LoraFile],
    *,
    tasks: tuple[object, ...],
) -> str | None:
    """What is on a merged model, by digests; None where something there has none."""
    if base.sha256 is None or found or any(each.patches for each in patchers):
        return None
    return repr((base.sha256, [module.sha256 for module in safety], tasks))
