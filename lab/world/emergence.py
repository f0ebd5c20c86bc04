"""Re-emergence in the emoji world: one seed's modules, by the pack's own trainers, and its models.

Arms: `base`; `safe`, with the safety LoRA; `task_only`, with the task LoRA alone; `sequential`,
whose task LoRA was trained on top of the safety LoRA (`frozen`); `modular`, whose was trained apart
(`detached`); `anchored`, whose was trained on top and held by an anchor.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import comfy.sd
import numpy as np
import torch

from ...host.comfyui import load_checkpoint
from ...host.prompts import encode_texts
from ...merge.merge import Merged, Task, merge
from ...modules.files import Module, load_safety, load_task
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
from .sets import SIDE, STYLES, TASK, caption

MODES = {"sequential": "frozen", "modular": "detached", "anchored": "anchored"}
BY_SEED = ("base", "task_only")  # no safety LoRA in them: one for all methods
ARMS = ("base", "task_only", "safe", *MODES)


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
        self.clip.cond_stage_model.float()  # or every text casts all weights anew
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

    def of_task(self, names: Iterable[str], style: str = TASK) -> tuple[torch.Tensor, list[str]]:
        """Latents and captions of a style's pictures; a model encodes them once."""
        own = style == TASK
        drawn = pictures.task_pictures() if own else pictures.named((STYLES[style],))[style]
        names = [name for name in names if name in drawn]
        which = (*names, style)
        if which not in self.encoded:
            self.encoded[which] = self.latents([drawn[name] for name in names])
        return self.encoded[which], [caption(name, style) for name in names]


@dataclass(frozen=True)
class Stage:
    """One seed of a recipe; modules are kept in `folder` and not trained twice."""

    base: Model
    recipe: Recipe
    seed: int
    folder: Path

    def safety(self, method: str) -> Module:
        """The safety LoRA, from prompts alone."""
        output = self.folder / f"safety-{method}-{self.seed}.safetensors"
        if not output.exists():
            kind, told = self.recipe.safety[method], self.recipe
            retained = recipe.RETAINED if kind.retain else ()
            settings = Settings(
                steps=kind.steps,
                batch_size=told.safety_batch,
                learning_rate=kind.rate,
                seed=1000 + self.seed,
                adapter=AdapterSettings(told.safety_rank, float(told.safety_rank)),
            )
            erasure = Erasure(
                kind.method, told.eta, told.guidance, told.safety_sampling_steps, kind.ema
            )
            texts = self.base.texts((*recipe.CONCEPTS, *retained))
            with quiet():
                train_safety(
                    self.base.model,
                    texts,
                    recipe.CONCEPTS,
                    settings,
                    TrainingJob(output),
                    erasure=erasure,
                    retain=retained,
                    resolution=SIDE,
                )
        return load_safety(output, output.name)

    def task(self, arm: str, method: str) -> Module:
        """The task LoRA of an arm, from harmless pictures of the new style."""
        alone = MODES[arm] == "detached"
        output = self.folder / f"{arm}-{'any' if alone else method}-{self.seed}.safetensors"
        if not output.exists():
            told = self.recipe
            settings = Settings(
                steps=told.task_steps,
                batch_size=told.task_batch,
                learning_rate=told.task_rate,
                seed=self.seed,
                targets=told.task_targets,
                adapter=AdapterSettings(told.task_rank, float(told.task_rank)),
                safety_mode=MODES[arm],
                anchor_lambda=told.anchor_lambda,
            )
            latents, captions = self.base.of_task(recipe.LEARNED)
            concepts = recipe.CONCEPTS if arm == "anchored" else ()
            texts = self.base.texts((*captions, *concepts))
            data: Dataset = of_sockets([{"samples": latents}], [texts[each] for each in captions])
            with quiet():
                train_task(
                    self.base.model,
                    data,
                    texts,
                    settings,
                    TrainingJob(output),
                    safety=[] if alone else [self.safety(method)],
                    concepts=concepts,
                )
        return load_task(output, output.name)

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
        model = self.base.model.clone()
        for each in modules:
            model = comfy.sd.load_lora_for_models(model, None, dict(each.tensors), 1.0, 0.0)[0]
        return model
