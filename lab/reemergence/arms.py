"""The arms: what is trained, with the pack's own trainers, and what the measured model holds."""

import functools
import shutil
from dataclasses import dataclass
from pathlib import Path

import comfy.sd
import torch
from comfy.model_patcher import ModelPatcher

from ...host.denoiser import Denoiser
from ...merge.merge import Merged, Task, merge
from ...modules.files import Module, load_safety, load_task
from ...training.adapter_settings import AdapterSettings
from ...training.data import Dataset, of_sockets
from ...training.engine.job import TrainingJob
from ...training.objectives import Erasure
from ...training.objectives.task import task_loss
from ...training.safety import train_safety
from ...training.settings import Settings
from ...training.task import train_task
from ..quiet import quiet
from . import base, text, world
from .recipe import Recipe

# arm: how its task module is trained; merged by Modular Merge with the safety module.
TRAINED = {
    "sequential": {"safety_mode": "frozen"},
    "modular": {"safety_mode": "detached"},
    "anchored": {"safety_mode": "anchored", "anchor_lambda": 3.0},
    "anchored_lambda1": {"safety_mode": "anchored", "anchor_lambda": 1.0},
}
PROJECTED = {  # arm: the arm whose module it merges with on_conflict="project"
    "sequential_projected": "sequential",
    "anchored_projected": "anchored",
    "anchored_lambda1_projected": "anchored_lambda1",
}
HOSTILE = {  # arm: how a task module is trained on the concept itself
    "hostile": {"safety_mode": "detached"},
    "hostile_sequential": {"safety_mode": "frozen"},
}
ARMS = ("base", "safe", "task_only", *TRAINED, "sequential_full", *PROJECTED, *HOSTILE)
BY_SEED = ("base", "task_only")  # no safety module in them: one for all methods


@dataclass(frozen=True)
class Stage:
    """One seed's data and the base; modules are kept in `folder` and not trained twice."""

    model: ModelPatcher
    recipe: Recipe
    seed: int
    folder: Path

    @property
    def texts(self) -> dict[str, list]:
        return text.texts((*world.SEEN, *world.UNSEEN, *world.OTHERS))

    def dataset(self, hostile: bool = False) -> Dataset:
        """The harmless task's pictures, or, for the hostile module, the concept's own."""
        recipe = self.recipe
        if hostile:
            pictures, captions, _ = world.pictures(
                recipe.pictures, 7000 + self.seed, people=1.0, concept=1.0
            )
        else:
            pictures, captions = world.task_pictures(
                recipe.pictures, 3000 + self.seed, recipe.new_style, recipe.people
            )
        encoded = text.texts(captions)
        return of_sockets(
            [{"samples": world.latents(pictures)}], [encoded[caption] for caption in captions]
        )

    def safety(self, method: str) -> Module:
        """The safety module, from the concept's prompts; `retain` adds prompts of other things."""
        recipe = self.recipe
        kind = recipe.safety[method]
        settings = Settings(
            steps=kind.steps,
            batch_size=recipe.safety_batch,
            learning_rate=kind.rate,
            seed=1000 + self.seed,
            adapter=AdapterSettings(recipe.safety_rank, float(recipe.safety_rank)),
        )
        erasure = Erasure(
            kind.erasure,
            recipe.eta,
            recipe.safety_guidance,
            recipe.safety_sampling_steps,
            recipe.ema,
        )
        output = self.folder / f"safety-{method}-{self.seed}.safetensors"
        job = TrainingJob(output)
        retain = world.OTHERS if kind.retain else ()
        more = {"erasure": erasure, "retain": retain, "resolution": world.SIDE}
        _once(
            output, lambda: train_safety(self.model, self.texts, world.SEEN, settings, job, **more)
        )
        return load_safety(output, output.name)

    def task(self, arm: str, method: str, mark: int = 0) -> Module:
        """The task module of an arm, or as it was after `mark` steps."""
        recipe, hostile = self.recipe, arm in HOSTILE
        changed = (HOSTILE if hostile else TRAINED)[arm]
        steps = recipe.hostile_steps if hostile else recipe.task_steps
        settings = Settings(
            steps=steps,
            batch_size=recipe.task_batch,
            learning_rate=recipe.task_rate,
            seed=self.seed,
            targets=recipe.task_targets,
            adapter=AdapterSettings(recipe.task_rank, float(recipe.task_rank)),
            anchor_every=recipe.anchor_every,
            **changed,
        )
        alone = changed["safety_mode"] == "detached"
        output = self.folder / f"{arm}-{'any' if alone else method}-{self.seed}.safetensors"
        safety = [] if alone else [self.safety(method)]
        concepts = world.SEEN if changed["safety_mode"] == "anchored" else ()

        def train_until(stop: int) -> None:
            if not output.with_suffix(".resume").exists():
                # of a run that was killed between its end and the copy
                output.unlink(missing_ok=True)
            # A cancelled run keeps what it learned, and goes on bit for bit: marks cost nothing.
            job = TrainingJob(
                output, resume=True, on_step=lambda progress: progress.step < stop or stop == steps
            )
            train_task(
                self.model,
                self.dataset(hostile),
                self.texts,
                settings,
                job,
                safety=safety,
                concepts=concepts,
            )
            shutil.copy(output, _at(output, stop))

        for stop in [*(each for each in recipe.marks if 0 < each < steps and not hostile), steps]:
            _once(_at(output, stop), functools.partial(train_until, stop))
        return load_task(_at(output, mark or steps), output.name)

    def full(self, method: str, on_step=lambda step, model: None) -> ModelPatcher:
        """All weights of base and safety, trained with the task modules' budget and batches."""
        recipe = self.recipe
        tuned = base.new_model(weights_of(merge(self.model, [self.safety(method)]).model))
        denoiser = Denoiser(tuned)
        parameters = list(denoiser.base.diffusion_model.requires_grad_(True).parameters())
        optimizer = torch.optim.AdamW(parameters, lr=recipe.full_rate, weight_decay=0.01)
        dataset = self.dataset()
        generator = torch.Generator().manual_seed(self.seed)
        for step in range(recipe.task_steps):
            chosen = torch.randint(
                len(dataset.latents), (recipe.task_batch,), generator=generator
            ).tolist()
            clean = torch.cat([dataset.latents[number] for number in chosen])
            noise = torch.randn(clean.shape, generator=generator)
            sigma = denoiser.sigmas(len(clean), generator)
            conditions = denoiser.conditions(
                [dataset.conditions[number] for number in chosen], clean
            )
            optimizer.zero_grad(set_to_none=True)
            task_loss(denoiser, clean, noise, sigma, conditions).backward()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            on_step(step + 1, tuned)
        denoiser.base.diffusion_model.requires_grad_(False)
        return tuned

    def model_of(self, arm: str, method: str, mark: int = 0) -> ModelPatcher:
        """The MODEL that an arm samples with."""
        if arm == "base":
            return self.model.clone()
        if arm == "task_only":
            module = self.task("modular", method, mark)
            return comfy.sd.load_lora_for_models(
                self.model,
                None,
                dict(module.tensors),
                1.0,
                0.0,
            )[0]
        if arm == "sequential_full":
            return self.full(method)
        if arm == "safe":
            return merge(self.model, [self.safety(method)]).model
        return self.merged(arm, method, mark).model

    def merged(self, arm: str, method: str, mark: int = 0) -> Merged:
        """Modular Merge's model and report, of an arm with a task module."""
        conflict = "project" if arm in PROJECTED else "report"
        task = self.task(PROJECTED.get(arm, arm), method, mark)
        return merge(self.model, [self.safety(method)], [Task(task)], on_conflict=conflict)


def weights_of(model: ModelPatcher) -> dict[str, torch.Tensor]:
    """The diffusion model's weights with all that is on them, as copies; it is unloaded again."""
    with torch.no_grad():
        network = Denoiser(model).base.diffusion_model
        found = {name: value.detach().clone() for name, value in network.state_dict().items()}
    model.detach()
    return found


def _at(output: Path, steps: int) -> Path:
    return output.with_stem(f"{output.stem}-at-{steps}")


def _once(wanted: Path, train) -> None:
    """Train, unless the file is there."""
    if not wanted.exists():
        with quiet():
            train()
