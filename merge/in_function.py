"""Retained safety in function of a merge: each safety module on its own, and the lock's canary."""

import contextlib
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from comfy.model_patcher import ModelPatcher

from ..function import kept
from ..function.canary import Canary, canary
from ..function.inputs import EMPTY, Ask, Moments, moments_of, short_form
from ..function.limits import Limits
from ..function.measure import FORMAT, Arm, Reference, computed_in, measured, reference
from ..function.network import (
    SAMPLING,
    CountForwards,
    HalfMaking,
    asked_prompts,
    empty_of,
    half_made,
    with_prompts,
)
from ..function.number import Number
from ..host.comfy_types import Conditioning
from ..modules.errors import ModuleFileError, SafetyError
from ..options.words import amount
from .arms import Arms
from .concept import NO_PROMPTS, PROMPTS_NEED_CLIP
from .entries import safety_of

logger = logging.getLogger(__name__)
EXPECTED = 90  # forwards of one safety module that is measured for the first time
LITTLE = "not measured: it hardly changes its own prompts (train it for longer)"
# of the canary's noise, where no safety module has prompts: share of the schedule, and pixels of a
# side, the first that a network takes
LEVEL, SIDES = 0.8, (64, 320)
# what networks raise that can't be run: of shapes, of memory, of conditions that they lack
UNRUN = (RuntimeError, TypeError, ValueError, ArithmeticError, LookupError, AttributeError)


@dataclass
class InFunction:
    """By safety module: its number, or why there is none; and the canary, if there is a clip."""

    limits: Limits = field(default_factory=Limits)
    numbers: dict[int, Number] = field(default_factory=dict)
    why: dict[int, str] = field(default_factory=dict)
    failed: set[int] = field(default_factory=set)  # of those with a reason: what should have run
    unguarded: str = ""  # why there is no canary, though there is a clip
    canary: Canary | None = None

    @property
    def least(self) -> int | None:
        """The safety module of which least is left; one that gave no number comes first."""

        def left(s: int) -> float:
            retained = self.numbers[s].retained
            return -math.inf if math.isnan(retained) else retained

        return min(self.numbers, key=left, default=None)

    def by_name(self, names: Sequence[str]) -> dict[str, Number]:
        return {names[s]: found for s, found in self.numbers.items()}

    def holds(self, s: int) -> bool:
        """Whether a safety module was measured, and is as it should be."""
        found = self.numbers.get(s)
        return found is not None and not self.limits.stops(found) and not self.limits.asks(found)

    def losses(self, names: Sequence[str]) -> list[str]:
        """Which safety modules, by name, are under the lower limit, in words."""
        return [
            f"retained safety of {names[s]} in function is {found.retained:.3f}, under"
            f" {self.limits.stop}"
            for s, found in self.numbers.items()
            if self.limits.stops(found)
        ]

    def looks(self, names: Sequence[str]) -> list[str]:
        """Which of them are between the limits, or could not be measured though they should."""
        found = [
            f"look at these pictures: retained safety of {names[s]} in function is"
            f" {found.retained:.3f}, under {self.limits.look}"
            for s, found in self.numbers.items()
            if self.limits.asks(found)
        ]
        found += [
            f"look at these pictures: {names[s]} was {self.why[s]}" for s in sorted(self.failed)
        ]
        if self.unguarded and not self.failed:
            found.append(f"look at these pictures: the network was {self.unguarded}")
        return found

    def reason(self, s: int) -> str:
        """What the number is of, or why there is none."""
        if s not in self.numbers:
            return self.why.get(s, PROMPTS_NEED_CLIP)
        return (
            "measured in the network's output on"
            f" {amount(len(self.numbers[s].by_prompt), 'prompt')}; sampling stops under"
            f" {self.limits.stop}, look at the pictures under {self.limits.look}"
        )


def in_function(
    model: ModelPatcher, arms: Arms, limits: Limits, step: Callable[[int], None]
) -> InFunction:
    """Measure a merged model, loaded as its lock holds it.

    What can't be measured is said, and stops nothing: a model that can't be run here is not run.
    """
    found = InFunction(limits)
    safety = safety_of(arms.entries)
    if arms.clip is None:
        found.why = dict.fromkeys(safety, PROMPTS_NEED_CLIP)
        return found
    for s in safety:
        if not arms.entries[s].module.prompts:
            found.why[s] = NO_PROMPTS
    try:
        with torch.no_grad():
            _measure(found, model, arms, [s for s in safety if s not in found.why], step)
    except (SafetyError, ModuleFileError):  # a change that can't be applied, sealed words
        raise
    except UNRUN as error:
        said = " ".join(str(error).split())[:200] or type(error).__name__
        why = found.unguarded = f"not measured: the model does not run here ({said})"
        logger.warning("Modular Merge: retained safety in function is %s", why)
        found.failed = {s for s in safety if s not in found.numbers | found.why}
        found.why |= dict.fromkeys(found.failed, why)
    return found


def _measure(
    found: InFunction,
    model: ModelPatcher,
    arms: Arms,
    safety: Sequence[int],
    step: Callable[[int], None],
) -> None:
    references = {s: reference_of(arms, s, short_form, step) for s in safety}
    prompts = [text for each in references.values() for ask in each.asks for text in ask.prompts]
    merged = arms.merged(model, prompts)
    name = arms.identity and kept.digest(
        format=FORMAT,
        merge=arms.identity,
        texts=merged.of_texts,
        asked=[
            [(each.level, each.seed, each.prompts) for each in ref.asks]
            for ref in references.values()
        ],
        side=[list(each.pictures[0].shape) for each in references.values()],
        **computed_in(model),
    )
    tensors = ((name and kept.read(name)) or ({}, {}))[0]
    if not tensors:
        for s, each in references.items():
            tensors[f"sums {s}"] = torch.from_numpy(measured(each, merged, step)[0].sums)
    found.canary = _canary(model, references, merged, tensors.get("canary"))
    if name and "canary" not in tensors:
        kept.write(name, {**tensors, "canary": found.canary.y}, {})
    for s, each in references.items():
        number = Number(tuple(asked_prompts(each.asks)), tensors[f"sums {s}"].numpy())
        if number.is_measurable:
            found.numbers[s] = number
        else:
            found.why[s] = LITTLE


def reference_of(
    arms: Arms,
    s: int,
    form: Callable[[Moments, Sequence[str]], Sequence[Ask]],
    step: CountForwards,
    made: HalfMaking = half_made,
) -> Reference:
    """Base and safe model at the pictures that a form asks for of a safety module's prompts."""
    module = arms.entries[s].module
    moments = moments_of(module.metadata, module.name)
    asks = form(moments, module.prompts)
    prompts = list(dict.fromkeys(text for ask in asks for text in (ask.of, *ask.prompts)))
    base_sha256 = arms.origin.sha256
    known = {"base": base_sha256, "safety": module.sha256} if base_sha256 else None
    return reference(
        arms.base(prompts),
        arms.safe(s, prompts),
        asks,
        resolution=moments.resolution,
        identity=known,
        made=made,
        step=step,
    )


def _canary(
    model: ModelPatcher, references: Mapping[int, Reference], merged: Arm, y: torch.Tensor | None
) -> Canary:
    """A canary where the first safety module does most; `y` is what was measured there before."""
    if not references:
        return on_noise(model, merged.texts[EMPTY].conditioning, y)
    first = next(iter(references.values()))
    y_b, y_s = (with_prompts(each, first.asks) for each in (first.base, first.safe))
    place = int((y_s - y_b).flatten(1).norm(dim=1).argmax())
    picture = [at for at, ask in enumerate(first.asks) for _ in ask.prompts][place]
    x, sigma = (each[picture : picture + 1] for each in first.pictures)
    told = merged.texts[asked_prompts(first.asks)[place]].conditioning
    return canary(model, (x, sigma), told, unsafe=y_b[place : place + 1], y=y)


def on_noise(model: ModelPatcher, conditioning: Conditioning, y: torch.Tensor | None) -> Canary:
    """Where no safety module has prompts: the smallest picture of noise that the network takes."""
    sampling = model.get_model_object(SAMPLING)
    sigma = torch.tensor([float(sampling.percent_to_sigma(1.0 - LEVEL))])
    found = []
    for side in SIDES:
        empty = empty_of(model, side)
        noise = torch.randn(empty.shape, generator=torch.Generator().manual_seed(1))
        found.append((sampling.noise_scaling(sigma, noise, empty), sigma))
    if y is not None:
        found = [each for each in found if each[0].shape == y.shape]
    with contextlib.suppress(ZeroDivisionError):  # PixArt's grid of a small picture
        return canary(model, found[0], conditioning, y=y)
    return canary(model, found[-1], conditioning, y=y)


def counted_from(weights: int, progress: Callable[[int, int], None]) -> Callable[[int], None]:
    """Counts forwards on top of the weights that are done."""
    made = 0

    def step(count: int) -> None:
        nonlocal made
        made += count
        progress(weights + min(made, EXPECTED), weights + EXPECTED)

    return step
