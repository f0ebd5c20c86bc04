"""Every merge of the suite measured once, a line of JSON each; what is there is not made again."""

import logging
import random
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import comfy.sd
import torch

from ...emoji import checkpoint
from ...host.prompts import encode_texts
from ...merge.entries import Task
from ...merge.merge import merge
from ...modules.files import LoraFile
from ..world import judging, weapons
from ..world.emergence import Model, put_on
from . import moment_products
from .attackers import Attacks, Bank
from .closed_form import changes, cosine, safe_lora
from .moment_products import Moments, Texts
from .phases import PHASES, Phase
from .store import Store
from .trained_loras import KINDS, Pool, Spec, specs

PROBE_SEED, LOOK_SEED, AUDIT_SEED = 71_000_000, 72_000_000, 73_000_000
Merge = Sequence[tuple[LoraFile, float]]


@dataclass
class Unit:
    """One safety module of one seed, and what is merged beside it."""

    bank: Bank
    pool: Pool
    store: Store
    name: str  # of the phase
    kind: str

    @property
    def phase(self) -> Phase:
        return PHASES[self.name]

    @property
    def seed(self) -> int:
        return self.phase.seed

    @property
    def stem(self) -> str:
        return f"{self.name}/{self.seed}/{self.kind}"

    @property
    def base(self) -> Model:
        return self.pool.base

    @cached_property
    def safety(self) -> LoraFile:
        return self.pool.safety(self.kind, self.seed)

    @cached_property
    def moments(self) -> Moments:
        prompts = (
            moment_products.SEALED,
            moment_products.HELD_OUT,
            moment_products.private(self.seed),
        )
        told = dict(zip(moment_products.KINDS, prompts, strict=True))
        return moment_products.made_at_levels(self.base, told, PROBE_SEED + self.seed)

    @cached_property
    def published(self) -> Moments:
        """The probe's moments as its attackers know them: with the same noise, none private."""
        own = self.moments
        some = [at for at, kind in enumerate(own.kinds) if kind != "private"]
        rest = ([each[at] for at in some] for each in (own.prompts, own.kinds, own.levels))
        return Moments(own.x[some], own.sigma[some], *rest)

    @cached_property
    def directions(self) -> tuple[torch.Tensor, torch.Tensor]:
        texts = self.base.texts(self.moments.prompts)
        both = (self.base.model, self.attacks.safe)
        return tuple(moment_products.directions(each, self.moments, texts) for each in both)

    @cached_property
    def attacks(self) -> Attacks:
        return Attacks(self.bank, self.safety, self.seed, self.published, self.pool.folder)

    def reference(self) -> None:
        """What every merge's products are compared with, and what safe model and base draw."""
        key = f"{self.stem}/reference"
        if key in self.store.rows:
            return
        of_base, of_safe = self.directions
        known = moment_products.products(of_base, of_base, of_safe)
        more = [row[2] for row in moment_products.products(of_safe, of_base, of_safe)]
        self.store.add(
            key,
            {
                "products": [[bb, bs, ss] for (bb, _, bs), ss in zip(known, more, strict=True)],
                "kinds": list(self.moments.kinds),
                "prompts": list(self.moments.prompts),
                "levels": list(self.moments.levels),
                "base": self.drawn(self.base.model, moment_products.LOOKED_AT, LOOK_SEED),
                "flags": self.drawn(self.attacks.safe, moment_products.LOOKED_AT, LOOK_SEED),
                "audit": self.drawn(self.attacks.safe, moment_products.AUDITED, AUDIT_SEED),
            },
        )

    def texts(self, prompts: Iterable[str], tasks: Merge = ()) -> Texts:
        """Prompts as the text encoder gives them, with what tasks change of it."""
        if not any(name.startswith("text_encoders.") for each, _ in tasks for name in each.tensors):
            return self.base.texts(prompts)
        clip = self.base.clip
        for module, strength in tasks:
            given = dict(module.tensors)
            clip = comfy.sd.load_lora_for_models(None, clip, given, 0.0, strength)[1]
        return encode_texts(clip, dict.fromkeys([*prompts, ""]))

    def drawn(
        self, merged, prompts: Sequence[str], seed: int, tasks: Merge = (), *, word: str = ""
    ) -> str:
        """Which pictures the detector of weapons flags, as 0 and 1."""
        asked = [f"{each}{word}" for each in prompts]
        texts = self.texts(asked, tasks)
        shown = moment_products.pictures(merged, self.base, texts, asked, seed + self.seed)
        return "".join("01"[int(each)] for each in judging.flagged(self.looker, shown))

    @cached_property
    def looker(self):
        return weapons.shipped()

    def verdict(self, tasks: Merge) -> dict:
        """What the pack's own merge says."""
        given = [Task(module, strength, strength) for module, strength in tasks]
        report = merge(self.base.model, [self.safety], given, self.base.clip).report
        safety = report["modules"][0]  # without numbers where it was not measured in function
        return {
            "retained": report["retained_safety"],
            "least": report["worst_layer"]["retained_safety"],
            "in_function": report["retained_in_function"],
            "why": safety["in_function"],
            "back": safety.get("back"),
            "against": safety.get("against"),
            "losses": len(report["losses"]),
            "in_function_losses": sum("in function" in each for each in report["losses"]),
            "looks": len(report["looks"]),
        }

    def measure(self, name: str, tasks: Merge, *, looked: bool, audited: bool, **more) -> None:
        """One merge's row; `looked` and `audited` cost pictures."""
        key = f"{self.stem}/{name}"
        known = self.store.rows.get(key)
        if known and "against" in known:
            return
        start = time.monotonic()
        if known:  # by an earlier verdict of the pack
            self.store.add(key, known | self.verdict(tasks))
            return
        patcher = put_on(self.base.model, [(self.safety, 1.0), *tasks])
        d = moment_products.directions(
            patcher, self.moments, self.texts(self.moments.prompts, tasks)
        )
        seen = changes(self.base.model, tasks)
        row = {
            "cosine": cosine(seen, self.attacks.change),
            "safe_lora": safe_lora(seen, self.attacks.change),
            "products": moment_products.products(d, *self.directions),
            "modules": [[module.name, round(strength, 3)] for module, strength in tasks],
            **self.verdict(tasks),
            **more,
        }
        if looked:
            row["flags"] = self.drawn(
                patcher, moment_products.LOOKED_AT, LOOK_SEED, tasks, word=more.get("word", "")
            )
        if audited:
            row["audit"] = self.drawn(patcher, moment_products.AUDITED, AUDIT_SEED, tasks)
        self.store.add(key, row)
        print(f"{key}: {time.monotonic() - start:.1f} s", flush=True)

    @property
    def specs(self) -> list[Spec]:
        """Of the harmless modules, which know of no safety module."""
        return specs(self.seed, self.phase.modules)

    def harmless(self) -> Iterator[tuple[str, Merge]]:
        """Merges of one to four harmless modules, at strengths of 0.3 to 1.5."""
        some = [self.pool.task(each) for each in self.specs]
        for number in range(self.phase.merges):
            chance = random.Random(f"merge-{self.stem}-{number}")
            chosen = chance.sample(some, min(chance.randint(1, 4), len(some)))
            yield f"harmless/{number}", [(each, chance.uniform(0.3, 1.5)) for each in chosen]

    def sequential(self) -> Iterator[tuple[str, Merge]]:
        """Harmless pictures learned on top of the safety module, and anchored beside it."""
        style, hard = (replace(spec, rank=16, targets="attention") for spec in specs(self.seed, 2))
        for spec in (style, hard):
            yield f"on-top/{spec.source}", [(self.pool.task(spec, self.safety), 1.0)]
        yield f"anchored/{hard.source}", [(self.pool.task(hard, self.safety, True), 1.0)]

    def attacked(self, name: str) -> Iterator[tuple[str, Merge]]:
        """An attacker alone, and beside a harmless module."""
        made = [(each, 1.0) for each in getattr(self.attacks, name)()]
        yield f"{name}/alone", made
        if len(made) > 1:
            yield from ((f"half/{number}", [each]) for number, each in enumerate(made))
        chance = random.Random(f"beside-{self.stem}-{name}")
        spec = chance.choice(self.specs)
        yield f"{name}/beside", [*made, (self.pool.task(spec), chance.uniform(0.3, 1.0))]

    def do_harmless(self) -> None:
        self.reference()
        for number, (name, tasks) in enumerate(self.harmless()):
            few = number < self.phase.audited
            self.measure(name, tasks, looked=few, audited=few, group="harmless")

    def do_attacks(self) -> None:
        for name, tasks in self.sequential():
            self.measure(name, tasks, looked=True, audited=True, group=name.split("/")[0])
        for name in self.phase.attackers:
            more = {"word": " glitter"} if name == "triggered" else {}
            for each, tasks in self.attacked(name):
                group, alone = each.split("/")[0], each.endswith("alone")
                self.measure(each, tasks, looked=True, audited=alone, group=group, **more)


def collect(phase: str, folder: Path) -> Store:
    """Make every row of a phase that is not there yet."""
    (folder / "modules").mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)  # what a merge says of each attacker
    file = folder / checkpoint.CHECKPOINT
    if not file.is_file():
        checkpoint.write(file)
    base, store = Model(file), Store(folder / "rows.jsonl")
    pool, bank = Pool(base, folder / "modules"), Bank(base)
    units = [Unit(bank, pool, store, phase, kind) for kind in KINDS]
    for unit in units:
        unit.do_harmless()
    for unit in units:
        unit.do_attacks()
    return store
