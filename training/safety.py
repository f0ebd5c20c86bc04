"""A safety LoRA: erase a concept without data, hold other concepts still, seal the result."""

import contextlib
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import cast

import comfy.sd
import torch
from comfy.model_patcher import ModelPatcher

from ..function.inputs import KEY as MOMENTS
from ..function.inputs import Moments
from ..host.comfy_types import Conditioning
from ..host.denoiser import Denoiser
from ..host.families import suiting
from ..merge.measure import TooWeak
from ..merge.merge import Merged, merge
from ..modules.concepts import HELD_OUT, check_apart, prompts_text
from ..modules.files import LoraFile
from .engine.adapters import Adapters
from .engine.batch import Batch, LossOf
from .engine.checkpoint import Progress
from .engine.compute import compute
from .engine.ema import Ema
from .engine.job import Result, TrainingJob
from .engine.run import run
from .harm import harmed
from .objectives import METHODS, Erasure
from .objectives.adversary import hardest
from .objectives.closed_form import ClosedForm
from .objectives.half_denoised import half_denoised
from .objectives.method import Method
from .objectives.retain import retain_loss
from .settings import Settings, fitted
from .surrogates import check_surrogates
from .targets import Roles, narrowed

Texts = Mapping[str, Conditioning]
OF_THE_PAPER = 3.0  # guidance of ESD's half-made pictures


def train_safety(
    model: ModelPatcher,
    texts: Texts,
    concepts: Sequence[str],
    settings: Settings,
    job: TrainingJob,
    *,
    erasure: Erasure | None = None,
    retain: Sequence[str] = (),
    held_out: Sequence[str] = (),
    surrogates: Sequence[str] = (),
    resolution: int = 512,
) -> Result | None:
    """Train a safety LoRA for a ComfyUI MODEL and write it, sealed at strength 1.0.

    It is written whole or not at all. `texts` holds the conditioning of every prompt in `concepts`,
    `retain` and `surrogates`, and of "". `surrogates` say what is drawn in place of each of the
    `concepts`, or nothing where the method need not know. Those in `held_out` are sealed with it,
    for a probe, and never trained on: one that is in another list is a ValueError. Layers and
    moving average are the method's, and the steps of a closed form; `settings.targets` is not used.
    Cancelling keeps what was trained. The model is given back as it was. The report has what was
    done to the retained prompts (harm.py).
    """
    erasure = erasure or Erasure()
    if not erasure.guidance:
        guidance = min(OF_THE_PAPER, suiting(model).guidance)
        erasure = dataclasses.replace(erasure, guidance=guidance)
    if not concepts:
        raise ValueError(
            "There is no concept prompt to erase. Fill in concept, or choose a concept_preset."
        )
    told = surrogates if METHODS[erasure.method].surrogates else ()
    told = told if any(told) else ()
    check_surrogates(erasure.method, concepts, told)
    check_apart(held_out, [*concepts, *retain, *told])
    apart = tuple(held_out), tuple(told)
    kind = SafetyRun(texts, concepts, retain, settings, erasure, resolution, *apart)
    learn = compute if isinstance(METHODS[erasure.method], ClosedForm) else run
    result = learn(model, kind, kind.settings, job)
    if result is None or result.progress.cancelled or not retain:
        return result

    def made_safe() -> ModelPatcher:
        return kind.previewed(model, result.module).model

    found = harmed(model, made_safe, texts, retain, resolution)
    return dataclasses.replace(result, report=result.report | {"harmed": found})


@dataclass(frozen=True)
class SafetyRun:
    """The objective, layers and metadata of a safety run.

    It implements `Kind`, and `Computed` for a method that is a closed form.
    """

    texts: Texts
    concepts: Sequence[str]
    retain: Sequence[str]
    given: Settings
    erasure: Erasure
    resolution: int
    held_out: Sequence[str] = ()
    surrogates: Sequence[str] = ()
    role, held = "safety", ()

    @property
    def method(self) -> ClosedForm:
        return cast(ClosedForm, METHODS[self.erasure.method])

    @property
    def trained(self) -> Method:
        return cast(Method, METHODS[self.erasure.method])

    @property
    def settings(self) -> Settings:
        return fitted(self.given, self.erasure)

    @property
    def buckets(self) -> Sequence[Sequence[int]]:
        return [range(len(self.concepts))]

    @property
    def identity(self) -> str:
        # as it was before there were any
        apart = [tuple(self.held_out)] if self.held_out else []
        apart += [("surrogates", *self.surrogates)] if self.surrogates else []
        about = tuple(self.concepts), tuple(self.retain), self.resolution, *apart
        return repr((self.erasure, *about))

    @property
    def example(self) -> Conditioning:
        return self.texts[self.concepts[0]]

    def layers(self, network: torch.nn.Module, roles: Roles) -> list[str]:
        return narrowed(self.trained.layers(network, roles), self.erasure.layer_pattern)

    @property
    def pairs(self) -> Sequence[tuple[Conditioning, Conditioning]]:
        """Each prompt of the concept with its surrogate, or the empty prompt where it has none."""
        instead = self.surrogates or [""] * len(self.concepts)
        both = zip(self.concepts, instead, strict=True)
        return [(self.texts[concept], self.texts[each]) for concept, each in both]

    @property
    def kept(self) -> Sequence[Conditioning]:
        """What stays: the retained prompts, what is drawn instead, and the empty prompt."""
        return [self.texts[each] for each in dict.fromkeys((*self.retain, *self.surrogates, ""))]

    @property
    def saliency(self) -> float:
        return self.erasure.saliency

    @property
    def preserve(self) -> float:
        return self.erasure.retain_weight

    def loss_of(self, denoiser: Denoiser, adapters: Adapters, ema: Ema | None) -> LossOf:
        """The loss of a batch of concept prompts: `erase`, and where it is asked for, `adversary`.

        With prompts to retain, `retain` too.
        """
        texts, retain, erasure = self.texts, self.retain, self.erasure
        method = self.trained

        teacher: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext
        if method.averaged:
            if ema is None:
                raise ValueError(
                    f"{method.name} makes its pictures with a moving average: ema is"
                    f" {erasure.ema}; it must be above 0."
                )
            teacher = ema.in_place

        def loss_of(batch: Batch) -> dict[str, torch.Tensor]:
            empty = denoiser.empty(self.resolution)
            noise = batch.normal(empty.shape[1:]).to(empty.device)
            told = [texts[self.concepts[number]] for number in batch.mine]
            concept = denoiser.conditions(told, noise)
            null = denoiser.conditions([texts[""]] * len(noise), noise)
            with teacher():
                moment = half_denoised(
                    denoiser, noise, concept, null, erasure, generator=batch.noise
                )
            if self.surrogates:
                instead = [texts[self.surrogates[number]] for number in batch.mine]
                moment = dataclasses.replace(moment, surrogate=denoiser.conditions(instead, noise))
            parts = {"erase": method.loss(denoiser, adapters, moment, erasure)}
            if erasure.adversarial_steps:
                hard = hardest(denoiser, adapters, moment, told, erasure.adversarial_steps)
                harder = dataclasses.replace(moment, concept=hard)
                parts["adversary"] = method.loss(denoiser, adapters, harder, erasure)
            if retain:
                others = denoiser.conditions(
                    [texts[retain[number]] for number in batch.integers(len(retain))], noise
                )
                held = retain_loss(denoiser, adapters, moment.noisy, moment.sigma, others)
                parts["retain"] = erasure.retain_weight * held
            return parts

        return loss_of

    def metadata(self, progress: Progress) -> dict[str, str]:
        erasure, concepts = self.erasure, list(self.concepts)
        about = {
            "erasure": vars(erasure),
            "concepts": concepts,
            "retain": list(self.retain),
            **({"surrogates": list(self.surrogates)} if self.surrogates else {}),
            "resolution": self.resolution,
        }
        return {
            "msl.strength": "1.0",
            "msl.concept": ", ".join(concepts),
            "msl.prompts": prompts_text(concepts),
            **({HELD_OUT: prompts_text(self.held_out)} if self.held_out else {}),
            MOMENTS: Moments(resolution=self.resolution).text(),
            "msl.method": erasure.method,
            "msl.training": self.settings.record(steps_done=progress.step, **about),
        }

    def previewed(self, model: ModelPatcher, module: LoraFile | None) -> Merged:
        """The safe base; before the first step, the base.

        While the module is too weak for Modular Merge it is put on as it is, and `too_weak` in the
        report says so.
        """
        if module is None:
            return Merged(model.clone(), None, {})
        try:
            return merge(model, [module])
        except TooWeak as error:
            as_it_is = comfy.sd.load_lora_for_models(model, None, dict(module.tensors), 1.0, 0.0)[0]
            return Merged(as_it_is, None, {"too_weak": str(error)})
