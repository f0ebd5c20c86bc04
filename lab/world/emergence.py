"""Re-emergence in the emoji world: one seed's modules, by the pack's own trainers, and its models.

Arms: `base`; `safe`, with the safety LoRA; `task_only`, with the task LoRA alone; `sequential`,
whose task LoRA was trained on top of the safety LoRA (`frozen`); `modular`, whose was trained apart
(`detached`); `anchored`, whose was trained on top and held by an anchor.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import comfy.sd
import numpy as np
import torch
from comfy.model_patcher import ModelPatcher

from ...host.comfyui import load_checkpoint
from ...host.prompts import encode_texts
from ...host.sampling import Sampling, as_picture, make_picture
from ...merge.merge import Merged, Task, merge
from ...modules.files import LoraFile, load_safety, load_task
from ...training.adapter_settings import AdapterSettings
from ...training.data import Dataset, of_sockets
from ...training.engine.job import TrainingJob
from ...training.objectives import Erasure
from ...training.safety import train_safety
from ...training.settings import Settings
from ...training.task import train_task
from ..quiet import quiet
from . import pictures, recipe
from .recipe import Recipe
from .sets import SIDE, TASK

MODES = {"sequential": "frozen", "modular": "detached", "anchored": "anchored"}
BY_SEED = ("base", "task_only")  # no safety LoRA in them: one for all methods
OF_PRIOR = 10**7  # the first seed of the prior pictures: of no arm's
ARMS = ("base", "task_only", "safe", *MODES)


def arms_of(told: Recipe) -> list[str]:
    """The arms that a recipe measures."""
    return [arm for arm in ARMS if arm not in told.without]


@dataclass
class Model:
    """The base as ComfyUI loads it, and the conditionings that were made with it.

    Those of a file beside the checkpoint (`keep`) are known from the start.
    """

    checkpoint: Path

    def __post_init__(self):
        kept = self.checkpoint.with_suffix(".texts.pt")
        self.known: dict[str, list] = torch.load(kept) if kept.is_file() else {}
        self.model, self.clip, self.vae = load_checkpoint(self.checkpoint)[:3]
        self.clip.cond_stage_model.float()  # or every text casts all weights
        self.encoded: dict[tuple, torch.Tensor] = {}  # latents by names and style

    def texts(self, prompts: Iterable[str]) -> dict[str, list]:
        """The conditioning of every prompt, and of the empty one."""
        wanted = dict.fromkeys([*prompts, ""])
        missing = [each for each in wanted if each not in self.known]
        if missing:
            self.known |= encode_texts(self.clip, missing)
        return {each: self.known[each] for each in wanted}

    def keep(self, prompts: Iterable[str]) -> None:
        """Write the conditionings of these prompts for the next one that loads this checkpoint."""
        torch.save(self.texts(prompts), self.checkpoint.with_suffix(".texts.pt"))

    def latents(self, drawn: list[np.ndarray]) -> torch.Tensor:
        """Pictures, uint8 (SIDE, SIDE, 3), as latents."""
        with torch.no_grad():
            return self.vae.encode(torch.from_numpy(np.stack(drawn)).float() / 255)

    def of_task(self, names: Sequence[str], style: str = TASK) -> tuple[torch.Tensor, list[str]]:
        """Latents and captions of a style's pictures; a model encodes them once."""
        drawn = pictures.captioned(names, style)
        if tuple(drawn) not in self.encoded:
            self.encoded[tuple(drawn)] = self.latents(list(drawn.values()))
        return self.encoded[tuple(drawn)], list(drawn)

    def drawn(
        self, model: ModelPatcher, prompts: Sequence[str], seeds: Iterable[int], told: Recipe
    ) -> list[np.ndarray]:
        """What a model draws for each prompt from its seed's noise: uint8 (SIDE, SIDE, 3)."""
        texts = self.texts(prompts)
        look = Sampling(told.sampling_steps, told.sampling_guidance, scheduler="sgm_uniform")
        about, found = {"size": (SIDE, SIDE)}, []
        in_bf16 = torch.autocast("cpu", torch.bfloat16, enabled=told.precision == "bf16")
        with torch.inference_mode(), in_bf16:
            for prompt, seed in zip(prompts, seeds, strict=True):
                both = texts[prompt], texts[""]
                picture = make_picture(model, self.vae, *both, look, seed=seed, **about)
                found.append(np.asarray(as_picture(picture)))
        return found

    def prior_pictures(self, told: Recipe) -> list[np.ndarray]:
        """The base's own picture of each of `told.prior`; made once."""
        kept = self.checkpoint.with_suffix(".prior.npy")
        if not kept.is_file():
            seeds = range(OF_PRIOR, OF_PRIOR + len(told.prior))
            np.save(kept, np.stack(self.drawn(self.model, told.prior, seeds, told)))
        return list(np.load(kept))

    def prior(self, told: Recipe) -> Dataset | None:
        """Those pictures, for prior preservation."""
        if not told.prior:
            return None
        texts, latents = self.texts(told.prior), self.latents(self.prior_pictures(told))
        return of_sockets([{"samples": latents}], [texts[each] for each in told.prior])

    def learned(
        self,
        output: Path,
        drawn: Callable[[], Iterable[tuple[str, np.ndarray]]],
        told: Recipe,
        safety: LoraFile | None,
        *,
        mode: str,
        **more,
    ) -> LoraFile:
        """A task LoRA from captions and pictures: apart, on top of a safety LoRA, or anchored.

        It is not trained twice. `more` are settings that differ from the recipe's.
        """
        if not output.exists():
            concepts = recipe.CONCEPTS if mode == "anchored" else ()
            settings = {
                "steps": told.task_steps,
                "batch_size": told.task_batch,
                "learning_rate": told.task_rate,
                "targets": told.task_targets,
                "adapter": AdapterSettings(told.task_rank, float(told.task_rank)),
                "anchor_lambda": told.anchor_lambda,
                "prior_weight": told.prior_weight,
                "schedule": told.task_schedule,
                "precision": told.precision,
                "safety_mode": mode,
            }
            said, shown = zip(*drawn(), strict=True)
            given, texts = Settings(**settings | more), self.texts((*said, *concepts))
            latents = self.latents(list(shown))
            data = of_sockets([{"samples": latents}], [texts[each] for each in said])
            held = {"safety": [safety] if safety else [], "concepts": concepts}
            held["prior"] = self.prior(told)
            with quiet():
                train_task(self.model, data, texts, given, TrainingJob(output), **held)
        return load_task(output, output.name)


@dataclass(frozen=True)
class Stage:
    """One seed of a recipe; modules are kept in `folder` and not trained twice."""

    base: Model
    recipe: Recipe
    seed: int
    folder: Path

    def safety(self, method: str) -> LoraFile:
        """The safety LoRA, from prompts alone."""
        output = self.folder / f"safety-{method}-{self.seed}.safetensors"
        if not output.exists():
            kind, told = self.recipe.safety[method], self.recipe
            retained = told.retained if kind.retain else ()
            settings = Settings(
                steps=kind.steps,
                batch_size=told.safety_batch,
                learning_rate=kind.rate,
                schedule=kind.schedule,
                precision=told.precision,
                seed=1000 + self.seed,
                adapter=AdapterSettings(told.safety_rank, float(told.safety_rank)),
            )
            steps, job = told.safety_sampling_steps, TrainingJob(output)
            how = {"retain_weight": kind.retain_weight, "ema": kind.ema}
            how |= {"saliency": kind.saliency, "layer_pattern": kind.layers}
            how["adversarial_steps"] = kind.adversarial_steps
            erasure = Erasure(kind.method, told.eta, told.guidance, steps, **how)
            more = {"erasure": erasure, "retain": retained, "resolution": SIDE}
            more["surrogates"] = told.surrogates
            texts = self.base.texts((*recipe.CONCEPTS, *told.surrogates, *retained))
            with quiet():
                train_safety(self.base.model, texts, recipe.CONCEPTS, settings, job, **more)
        return load_safety(output, output.name)

    def task(self, arm: str, method: str) -> LoraFile:
        """The task LoRA of an arm, from harmless pictures of the new style."""
        alone = MODES[arm] == "detached"
        output = self.folder / f"{arm}-{'any' if alone else method}-{self.seed}.safetensors"
        told = self.recipe
        return self.base.learned(
            output,
            lambda: pictures.lessons(
                told.style, recipe.LEARNED, recipe.OWN_KIN, told.kin_shown
            ).values(),
            told,
            None if alone else self.safety(method),
            mode=MODES[arm],
            seed=self.seed,
        )

    def merged(self, arm: str, method: str) -> Merged:
        """Modular Merge's model and report."""
        tasks = [] if arm == "safe" else [Task(self.task(arm, method))]
        return merge(self.base.model, [self.safety(method)], tasks)

    def model_of(self, arm: str, method: str):
        """The MODEL that an arm samples with.

        It is made by stock loaders, without the lock, so that what that refuses can be looked at.
        """
        modules = [] if arm in BY_SEED else [self.safety(method)]
        if arm == "task_only":
            modules.append(self.task("modular", method))
        elif arm in MODES:
            modules.append(self.task(arm, method))
        return put_on(self.base.model, [(each, 1.0) for each in modules])


def put_on(model: ModelPatcher, modules: Iterable[tuple[LoraFile, float]]) -> ModelPatcher:
    """The MODEL with modules at their strengths, by ComfyUI's own loader: there is no lock."""
    patcher = model.clone()
    for module, strength in modules:
        given = dict(module.tensors)
        patcher = comfy.sd.load_lora_for_models(patcher, None, given, strength, 0.0)[0]
    return patcher
