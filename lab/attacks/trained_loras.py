"""The modules of the suite that are trained: two kinds of safety, harmless tasks, those on top."""

import itertools
import random
from dataclasses import dataclass
from pathlib import Path

from ...modules.files import LoraFile
from ...training.adapter_settings import AdapterSettings
from ..world.emergence import Model, Stage
from ..world.recipe import NEAR, RETAINED, Erased, Recipe
from . import sources

STEPS = 250
RANKS = (1, 4, 8, 16, 32, 64)
TARGETS = ("cross-attention", "attention", "attention", "attention+mlp", "all")
# of safety module, by ESD-x, with far names held: that of the world's recipe, and a stronger one
KINDS = {
    "light": Recipe({"light": Erased("esd-x", 85, retain=True)}),
    "thorough": Recipe(
        {"thorough": Erased("esd-x", 150, retain=True)},
        safety_rank=8,
        retained=RETAINED + NEAR,
    ),
}
TOLD = Recipe(task_steps=STEPS)


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

    def safety(self, kind: str, seed: int) -> LoraFile:
        return Stage(self.base, KINDS[kind], seed, self.folder).safety(kind)

    def task(self, spec: Spec, safety: LoraFile | None = None, anchored: bool = False) -> LoraFile:
        """A task LoRA from harmless pictures: apart, or on top of a safety module, or anchored."""
        mode = "apart" if safety is None else "anchored" if anchored else "on-top"
        beside = "" if safety is None else f"-{safety.name.removesuffix('.safetensors')}"
        name = f"{mode}-{spec.source.replace(':', '_')}-{spec.seed}{beside}.safetensors"
        return self.base.learned(
            self.folder / name,
            lambda: sources.drawn(spec.source, spec.seed).items(),
            TOLD,
            safety,
            mode={"apart": "detached", "on-top": "frozen"}.get(mode, mode),
            seed=spec.seed,
            targets=spec.targets,
            adapter=AdapterSettings(spec.rank, float(spec.rank), use_dora=spec.dora),
        )
