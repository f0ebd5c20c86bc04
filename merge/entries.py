"""A merge's modules, checked against its model: safety strictly, tasks as far as they reach."""

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from comfy.model_patcher import ModelPatcher
from comfy.utils import get_attr

from ..host.comfy_types import Clip
from ..host.weights import base_name, patchable
from ..modules.errors import SafetyError, ShapeMismatch
from ..modules.files import LoraFile
from ..options.choices import chosen
from ..options.words import amount
from .changes import Change, check_shape
from .coverage import NO_CLIP, SETTING, Coverage, Target, cover, key_map, target_key
from .sizes import check_size

logger = logging.getLogger(__name__)
NEED_SAFETY = ("anchored", "frozen")  # modes of training: with their safety module on


@dataclass(frozen=True)
class Task:
    """A task module with its weights w_i for the diffusion model and for the text encoder."""

    module: LoraFile
    strength_model: float = 1.0
    strength_clip: float = 1.0


@dataclass(frozen=True)
class Entry:
    """One module in a merge, with what of it lands where."""

    module: LoraFile
    coverage: Coverage
    strength_model: float
    strength_clip: float

    @property
    def is_safety(self) -> bool:
        return self.module.role == "safety"


@dataclass(frozen=True)
class Base:
    """What modules are checked against: a model, its text encoder if connected, and layer names."""

    name: str
    names: Mapping[str, Target]
    shapes: Mapping[str, torch.Size]
    has_clip: bool


def base_of(model: ModelPatcher, clip: Clip | None = None) -> Base:
    """Names and shapes of the weights that the host can patch, of a MODEL and a CLIP if given."""
    shapes: dict[str, torch.Size] = {}
    for network in [model.model] + ([] if clip is None else [clip.patcher.model]):
        # of the weights themselves: the state dict of a quantised one is packed
        shapes |= {key: get_attr(network, key).shape for key in patchable(network)}
    return Base(base_name(model), key_map(model, clip), shapes, clip is not None)


def check_companions(safety: Sequence[LoraFile], tasks: Sequence[Task]) -> None:
    """Raise SafetyError for a missing or doubled safety module, or a task that needs another."""
    if not safety:
        raise SafetyError("Modular Merge needs a safety LoRA; connect Load Safety LoRA (locked).")
    for role, modules in (("safety", safety), ("task", [task.module for task in tasks])):
        for module in modules:
            chosen(module.role, (role,), f"{module.name}: the role of a {role} LoRA")
    digests = [module.sha256 for module in safety]
    for module in safety:
        if digests.count(module.sha256) > 1:
            raise SafetyError(
                f"{module.name}: this safety LoRA is connected twice. Connect it once: its strength"
                " can't be doubled."
            )
    for task in tasks:
        for strength in (task.strength_model, task.strength_clip):
            if not math.isfinite(strength):
                raise SafetyError(
                    f"{task.module.name}: its strength is {strength}; it must be a finite number."
                )
        wanted = task.module.metadata.get("msl.safety_sha256", "").split(",")
        mode = task.module.metadata.get("msl.safety_mode", "detached")
        chosen(mode, ("detached", *NEED_SAFETY), f"{task.module.name}: msl.safety_mode")
        missing = [each[:12] for each in wanted if each not in digests]
        if mode in NEED_SAFETY and missing:
            raise SafetyError(
                f"{task.module.name}: it was trained {mode} beside the safety LoRA"
                f" {' and '.join(missing)} and needs it; this merge has"
                f" {', '.join(each[:12] for each in digests)}. Load that safety LoRA, or a task"
                " LoRA that was trained detached."
            )


def safety_entry(module: LoraFile, base: Base) -> Entry:
    """A safety module of which every tensor lands with the right shape; SafetyError otherwise."""
    coverage = _covered(module, base)
    if coverage.unused:
        raise SafetyError(misfit(module, coverage.unused, base))
    return Entry(module, coverage, module.sealed_strength, module.sealed_strength)


def task_entry(task: Task, base: Base) -> Entry:
    """A task module of which something fits and nothing is misshapen; logs once what is unused."""
    coverage = _covered(task.module, base)
    if not coverage.patches:
        raise SafetyError(misfit(task.module, coverage.unused, base))
    if coverage.unused:
        key, why = next(iter(coverage.unused.items()))
        logger.warning(
            "%s: %d of %d tensors can't be used (first: %s: %s); see the merge report.",
            task.module.name,
            len(coverage.unused),
            len(task.module.tensors),
            key,
            why,
        )
    return Entry(task.module, coverage, task.strength_model, task.strength_clip)


def read_entries(safety: Sequence[LoraFile], tasks: Sequence[Task], base: Base) -> list[Entry]:
    """The modules of a merge, each with its index i from here on: safety modules s come first."""
    return [
        *(safety_entry(module, base) for module in safety),
        *(task_entry(task, base) for task in tasks),
    ]


def safety_of(entries: Sequence[Entry]) -> list[int]:
    """The indices s of the safety modules."""
    return [i for i, entry in enumerate(entries) if entry.is_safety]


def labels(entries: Sequence[Entry]) -> list[str]:
    """A name for each module that no other has: files of one name in two folders are numbered."""
    names = [entry.module.name for entry in entries]
    return [
        f"{name} ({names[:place].count(name) + 1})" if names.count(name) > 1 else name
        for place, name in enumerate(names)
    ]


def change_of(target: Target, value: object, strength: float) -> Change:
    """The change that a parsed patch makes at its target."""
    return (
        Change(strength, value) if isinstance(target, str) else Change(strength, value, *target[1:])
    )


OF_A_CHECKPOINT = "first_stage_model."  # a VAE, which no LoRA has


def misfit(module: LoraFile, wrong: Mapping[str, str], base: Base) -> str:
    """The message for tensors that do not fit.

    It has the file, both bases and the way out; then the count, the first tensor and its reason.
    """
    key, why = next(iter(wrong.items()))
    elsewhere = "Use it on its own base, or load a LoRA made for this one"
    if any(each.startswith(OF_A_CHECKPOINT) for each in wrong):
        elsewhere = "It is a whole checkpoint: open it with Load Checkpoint, and load a LoRA here"
    way_out = {NO_CLIP: "Connect the clip input", SETTING: "Save it without them"}
    other = module.base != base.name
    fit = "does not fit" if len(wrong) == 1 else "do not fit"
    made_for = f": it was made for {module.base}, and this model is {base.name}" if other else ""
    return (
        f"{module.name} does not fit this model{made_for}. {way_out.get(why, elsewhere)}."
        f" ({len(wrong)} of {amount(len(module.tensors), f'{module.role} tensor')} {fit},"
        f" first: {key}: {why}.)"
    )


def _covered(module: LoraFile, base: Base) -> Coverage:
    coverage = cover(module, base.names, base.shapes.keys(), base.has_clip)
    wrong = dict(coverage.broken)
    for target, value in coverage.patches.items():
        change, shape = change_of(target, value, 1.0), base.shapes[target_key(target)]
        try:
            check_shape(change, shape)
            check_size(change, shape)
        except ShapeMismatch as error:
            wrong |= dict.fromkeys(sorted(coverage.keys[target]), str(error))
    if wrong:
        raise SafetyError(misfit(module, wrong, base))
    return coverage
