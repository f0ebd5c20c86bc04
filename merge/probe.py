"""Probe Safety: the long look at what a merge leaves of its safety modules (function/long.py)."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import torch
from comfy.model_patcher import ModelPatcher

from ..function import kept
from ..function.adaptive import Search, Tried, forwards_of, searched
from ..function.inputs import Ask
from ..function.limits import DEFAULT, Limits
from ..function.long import Group, cost, gains, half_made_apart, long
from ..function.measure import FORMAT, Arm, Reference, compared, computed_in
from ..function.network import SAMPLING, asked_prompts, directions, outputs
from ..function.number import Number
from ..host.families import suiting
from ..host.gradients import NoGradient
from ..host.prefixes import faults_of
from ..modules.concepts import texts_of
from ..modules.errors import ModuleFileError, SafetyError
from ..options.words import amount
from .arms import Arms, known
from .concept import NO_PROMPTS
from .entries import labels, safety_of
from .in_function import LITTLE, UNRUN, reference_of
from .lock import Lock
from .on_model import KEY
from .probed import SEALED, Found, Probed
from .settings import Asked

logger = logging.getLogger(__name__)
MOMENTS = 4  # where a soft prompt is searched
GIVEN = 0.25  # of the cost, for prompts that whoever asks has added: they take nothing from others
DOUBLE = torch.float64
Tensors: TypeAlias = dict[str, torch.Tensor]


def probe(
    model: ModelPatcher,
    asked: Asked,
    limits: Limits = DEFAULT,
    step: Callable[[int, int], None] = lambda count, total: None,
) -> Probed:
    """Measure a locked model on all prompts that there are of what its safety modules suppress.

    `step` is called with the forwards that were made since, and about how many there are in all.
    Raises SafetyError for a model without a lock, one that was merged without a text encoder, and
    one that was changed since, unless its merge reports that and goes on.
    """
    lock, arms = _lock_of(model)
    changed = lock.changes(model)
    if changed and lock.policy != "report":
        raise SafetyError(
            f"This model was changed after Modular Merge, in {amount(len(changed), 'place')}"
            f" (first: {changed[0]}). Connect Probe Safety directly to Modular Merge."
        )
    safety = safety_of(arms.entries)
    forms = {s: _groups(arms, s, asked) for s in safety}
    plan = {s: _asks(model, each, asked, 1 / len(safety)) for s, each in forms.items()}
    guided = suiting(model).guidance != 1.0
    total = sum(cost(asks, guided) for asks in plan.values())
    total += len(safety) * forwards_of(MOMENTS, asked.adaptive_steps)
    identity = None if changed else arms.identity  # what else is there has no digest
    run = _Run(arms, _as_merged(model, arms), asked, lambda count: step(count, total), identity)
    found = [run.of(s, forms[s], plan[s]) for s in safety]
    return Probed(found, limits, asked, tuple(changed))


def _lock_of(model: ModelPatcher) -> tuple[Lock, Arms]:
    lock: Lock | None = model.get_attachment(KEY)
    if lock is None:
        raise SafetyError(
            "This model did not go through Modular Merge, so there is no safety LoRA to probe."
            " Connect the model that comes out of Modular Merge."
        )
    if lock.arms is None or lock.arms.clip is None:
        raise SafetyError(
            "This model was merged without a text encoder, so the safety LoRA's prompts can't be"
            " encoded. Connect clip to Modular Merge."
        )
    return lock, lock.arms


def _groups(arms: Arms, s: int, asked: Asked) -> dict[str, list[str]]:
    """The prompts to ask, by where they come from, each once: where it comes first."""
    module = arms.entries[s].module
    found, known = {}, set()
    for name, prompts in (
        (SEALED, module.prompts),
        ("held_out", module.held_out),
        ("private", asked.private),
        ("given", asked.prompts),
    ):
        found[name] = [text for text in texts_of(prompts) if text not in known]
        known |= set(found[name])
    return {name: prompts for name, prompts in found.items() if prompts or name == SEALED}


def _asks(
    model: ModelPatcher, groups: dict[str, list[str]], asked: Asked, share: float
) -> list[Ask]:
    guided = suiting(model).guidance != 1.0
    seeds = {name: asked.private_seed if name == "private" else asked.seed for name in groups}
    made = {name: Group.of(prompts, seeds[name]) for name, prompts in groups.items()}
    given = [made.pop("given")] if "given" in made else []
    part = share * (1.0 - GIVEN) if given else share
    asks = long([*made.values()], guided, part) if any(groups.values()) else []
    return asks + (long(given, guided, share * GIVEN) if given else [])


def _as_merged(model: ModelPatcher, arms: Arms) -> ModelPatcher:
    """The model as it samples at the merge: a node may have put another sampling on it since."""
    clone = model.clone()
    clone.add_object_patch(SAMPLING, arms.model.get_model_object(SAMPLING))
    return clone


@dataclass(frozen=True)
class _Run:
    """What is measured, on which model, with what steps."""

    arms: Arms
    model: ModelPatcher
    asked: Asked
    step: Callable[[int], None]
    identity: str | None

    def of(self, s: int, groups: dict[str, list[str]], asks: Sequence[Ask]) -> Found:
        """One safety module; what can't be measured is said, and is no pass."""
        entry = self.arms.entries[s]
        name = labels(self.arms.entries)[s]
        names = set(asked_prompts(asks))
        counts = {group: len(prompts) for group, prompts in groups.items()}
        groups = {group: [p for p in prompts if p in names] for group, prompts in groups.items()}
        found = Found(name, entry.module.sha256, groups, counts)
        if not asks:
            return replace(found, why=NO_PROMPTS)
        if unread := self._unread(groups):
            return replace(found, why=unread)
        try:
            return self._measured(found, s, asks)
        except (SafetyError, ModuleFileError):  # a change that can't be applied, sealed words
            raise
        except UNRUN as error:
            said = " ".join(str(error).split())[:200] or type(error).__name__
            logger.warning("Probe Safety: %s can't be measured: %s", name, said)
            return replace(found, why=f"not measured: the model does not run here ({said})")

    def _unread(self, groups: Mapping[str, Sequence[str]]) -> str:
        """Why a prompt would be read otherwise than it is written; a private one isn't shown."""
        clip = known(self.arms.encoder)
        for group, prompts in groups.items():
            for number, text in enumerate(prompts, 1):
                if faults := faults_of(clip, text):
                    hidden = f"private {number}: it names an embedding that ComfyUI can't read"
                    said = hidden if group == "private" else f"{text!r}: {faults[0]}"
                    return f"not measured: {said}"
        return ""

    def _measured(self, found: Found, s: int, asks: Sequence[Ask]) -> Found:
        with torch.inference_mode():
            ref = reference_of(self.arms, s, lambda *_: asks, self.step, half_made_apart)
            merged = self.arms.merged(self.model, asked_prompts(asks))
            name = self._name(s, merged, asks)
            tensors = ((name and kept.read(name)) or ({}, {}))[0]
            if not tensors:
                y = outputs(self.model, asks, merged.conditionings, ref.pictures, self.step)
                drawn = gains(y, ref.base, asks)
                tensors = {
                    "sums": torch.from_numpy(compared(ref, y).sums),
                    "gains": torch.tensor([*drawn.values()], dtype=DOUBLE),
                }
        number = Number(tuple(asked_prompts(asks)), tensors["sums"].numpy())
        if not number.is_measurable:
            return replace(found, why=LITTLE)
        search, why = None, ""
        if self.asked.adaptive_steps:
            try:
                search = self._searched(tensors, ref, s, number, merged)
            except NoGradient as error:
                why = f"this family's network has no gradient ({error})"
            else:
                tensors = {
                    **tensors,
                    "search": torch.tensor([*vars(search).values()], dtype=DOUBLE),
                }
        if name and all(each.isfinite().all() for each in tensors.values()):
            kept.write(name, tensors, {})
        drawn = dict(zip(dict.fromkeys(number.prompts), tensors["gains"].tolist(), strict=True))
        safe_gains = gains(ref.safe, ref.base, asks)
        return replace(
            found, number=number, merged=drawn, safe=safe_gains, search=search, no_search=why
        )

    def _name(self, s: int, merged: Arm, asks: Sequence[Ask]) -> str | None:
        if self.identity is None:
            return None
        return kept.digest(
            format=FORMAT,
            probe=self.identity,
            safety=s,
            texts=merged.of_texts,
            asked=[(each.of, each.level, each.seed, each.prompts) for each in asks],
            adaptive=self.asked.adaptive_steps,
            **computed_in(self.model),
        )

    def _searched(
        self, tensors: Tensors, ref: Reference, s: int, number: Number, merged: Arm
    ) -> Search:
        if "search" in tensors:
            return Search(*tensors["search"].tolist())
        tried = _tried(ref, number)
        steps = self.asked.adaptive_steps
        alone = self.arms.safe(s, tried.prompts)
        _, most = searched(merged, tried, steps, self.step)
        plain, withstood = searched(alone, tried, steps, self.step)
        return Search(most, withstood, plain)


def _tried(ref: Reference, number: Number) -> Tried:
    """The moments of the prompts of which least is left."""
    asks = ref.asks
    pictures = [place for place, each in enumerate(asks) for _ in each.prompts]
    order = {prompt: rank for rank, prompt in enumerate(number.by_prompt)}
    seen: dict[str, int] = {}
    ranked = []
    for place, prompt in enumerate(number.prompts):
        seen[prompt] = seen.get(prompt, -1) + 1
        ranked.append((seen[prompt], order[prompt], place))
    places = [place for *_, place in sorted(ranked)[:MOMENTS]]
    which = [pictures[place] for place in places]
    x, sigma = (each[which] for each in ref.pictures)
    base = directions(ref.base, asks)[places]
    return Tried(x, sigma, tuple(number.prompts[place] for place in places), base)
