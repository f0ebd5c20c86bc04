"""The models that a report compares: the base, the safe model, and what is left after tuning."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import comfy.sd
from comfy.model_patcher import ModelPatcher

from ..host.comfy_types import Clip
from ..merge.arms import Arms
from ..merge.entries import Task, base_of, task_entry
from ..merge.merge import merge
from ..merge.on_model import KEY
from ..modules.files import LoraFile
from .names import BASE, BESIDE, ON_TOP, SAFE


@dataclass(frozen=True)
class Tuning:
    """Task LoRAs: merged beside the safety LoRA, and trained on top of the safe model."""

    beside: Sequence[Task] = ()
    on_top: Sequence[Task] = ()

    def told(self, arm: str) -> list[dict[str, object]]:
        """The LoRAs of an arm, for reports."""
        return [
            {
                "name": each.module.name,
                "role": "task",
                "sha256": each.module.sha256,
                "strength": each.strength_model,
                "strength_clip": each.strength_clip,
            }
            for each in getattr(self, arm, ())
        ]


@dataclass(frozen=True)
class Models:
    """What the safe model was merged of, and the MODEL and CLIP of each arm."""

    arms: Arms
    by_arm: Mapping[str, tuple[ModelPatcher, Clip]]

    @classmethod
    def of(cls, model: ModelPatcher, clip: Clip, module: LoraFile, tuning: Tuning) -> "Models":
        """Merge them. Raises ValueError for a base with LoRAs on it, SafetyError as a merge does.

        What was trained on top is put on as ComfyUI's own loaders do, without a lock.
        """
        if model.patches or clip.patcher.patches:
            raise ValueError(
                "There are LoRAs on this model already, and the report compares the safe model with"
                " its base. Connect model and clip straight from their loader."
            )
        safe = merge(model, [module], (), clip)
        found = {BASE: (model, clip), SAFE: (safe.model, safe.clip or clip)}
        if tuning.beside:
            both = merge(model, [module], tuning.beside, clip)
            found[BESIDE] = both.model, both.clip or clip
        if tuning.on_top:
            found[ON_TOP] = stock((model, clip), [module], tuning.on_top)
        return cls(safe.model.get_attachment(KEY).arms, found)


def stock(
    base: tuple[ModelPatcher, Clip], safety: Sequence[LoraFile], tasks: Sequence[Task]
) -> tuple[ModelPatcher, Clip]:
    """A base with safety and task LoRAs on it as ComfyUI's own loaders do it, without a lock."""
    names = base_of(*base)
    for each in tasks:
        task_entry(each, names)  # the stock loader only logs that nothing fits
    loras = [(each, each.sealed_strength, each.sealed_strength) for each in safety]
    loras += [(each.module, each.strength_model, each.strength_clip) for each in tasks]
    model, clip = base
    for lora, on_model, on_clip in loras:
        model, clip = comfy.sd.load_lora_for_models(
            model, clip, dict(lora.tensors), on_model, on_clip
        )
    return model, clip
