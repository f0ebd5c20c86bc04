"""The modules of the suite that are trained: two kinds of safety, harmless tasks, those on top."""

import itertools
import random
from dataclasses import dataclass
from pathlib import Path

from ...modules.files import Module, load_safety, load_task
from ...training.adapter_settings import AdapterSettings
from ...training.data import Dataset, of_sockets
from ...training.engine.job import TrainingJob
from ...training.objectives import Erasure
from ...training.safety import train_safety
from ...training.settings import Settings
from ...training.task import train_task
from ..quiet import quiet
from ..world import recipe
from ..world.emergence import Model
from ..world.recipe import Recipe
from ..world.sets import BASE, SIDE, TOOLS, caption
from . import sources

TOLD = Recipe()
STEPS = 250
RANKS = (1, 4, 8, 16, 32, 64)
TARGETS = ("cross-attention", "attention", "attention", "attention+mlp", "all")
TOOLS_RETAINED = tuple(
    caption(name, BASE[place % len(BASE)]) for place, name in enumerate(TOOLS[1::2])
)


@dataclass(frozen=True)
class Kind:
    """How one kind of safety module is trained, by ESD-x, with far names held."""

    steps: int
    rank: int
    retained: tuple[str, ...]


KINDS = {
    "light": Kind(85, 4, recipe.RETAINED),  # the recipe's `esd-x-retained`
    "thorough": Kind(150, 8, recipe.RETAINED + TOOLS_RETAINED),
}


@dataclass(frozen=True)
class Spec:
    """One harmless task module."""

    source: str
    rank: int
    targets: str
    dora: bool
    seed: int

    @property
    def hard(self) -> bool:
        return self.source.split(":")[0] in sources.HARD


def specs(seed: int, count: int) -> list[Spec]:
    """The harmless modules of one seed: sources in random order, two in five of them hard."""
    chance = random.Random(f"pool-{seed}")
    order = chance.sample(sources.SOURCES, len(sources.SOURCES))
    hard = [each for each in order if each.split(":")[0] in sources.HARD]
    both = itertools.cycle(hard), itertools.cycle([each for each in order if each not in hard])
    return [
        Spec(
            next(both[place % 5 not in (1, 3)]),
            chance.choice(RANKS),
            chance.choice(TARGETS),
            chance.random() < 0.2,
            1000 * seed + place,
        )
        for place in range(count)
    ]


@dataclass(frozen=True)
class Pool:
    """Trains what is not in `folder` yet, and reads it."""

    base: Model
    folder: Path

    def safety(self, kind: str, seed: int) -> Module:
        output = self.folder / f"safety-{kind}-{seed}.safetensors"
        if not output.exists():
            told = KINDS[kind]
            settings = Settings(
                steps=told.steps,
                batch_size=TOLD.safety_batch,
                learning_rate=1e-3,
                seed=1000 + seed,
                adapter=AdapterSettings(told.rank, float(told.rank)),
            )
            erasure = Erasure("esd-x", TOLD.eta, TOLD.guidance, TOLD.safety_sampling_steps)
            texts = self.base.texts((*recipe.CONCEPTS, *told.retained))
            with quiet():
                train_safety(
                    self.base.model,
                    texts,
                    recipe.CONCEPTS,
                    settings,
                    TrainingJob(output),
                    erasure=erasure,
                    retain=told.retained,
                    resolution=SIDE,
                )
        return load_safety(output, output.name)

    def data(self, source: str, seed: int) -> Dataset:
        drawn = sources.drawn(source, seed)
        latents = self.base.latents(list(drawn.values()))
        texts = self.base.texts(drawn)
        return of_sockets([{"samples": latents}], [texts[each] for each in drawn])

    def task(self, spec: Spec, safety: Module | None = None, anchored: bool = False) -> Module:
        """A task LoRA from harmless pictures: apart, or on top of a safety module, or anchored."""
        mode = "apart" if safety is None else "anchored" if anchored else "on-top"
        beside = "" if safety is None else f"-{safety.name.removesuffix('.safetensors')}"
        name = f"{mode}-{spec.source.replace(':', '_')}-{spec.seed}{beside}.safetensors"
        output = self.folder / name
        if not output.exists():
            settings = Settings(
                steps=STEPS,
                batch_size=TOLD.task_batch,
                learning_rate=TOLD.task_rate,
                seed=spec.seed,
                targets=spec.targets,
                adapter=AdapterSettings(spec.rank, float(spec.rank), use_dora=spec.dora),
                safety_mode={"apart": "detached", "on-top": "frozen"}.get(mode, mode),
                anchor_lambda=TOLD.anchor_lambda,
            )
            concepts = recipe.CONCEPTS if anchored else ()
            with quiet():
                train_task(
                    self.base.model,
                    self.data(spec.source, spec.seed),
                    self.base.texts(concepts),
                    settings,
                    TrainingJob(output),
                    safety=[] if safety is None else [safety],
                    concepts=concepts,
                )
        return load_task(output, output.name)
