"""The locks of a merge: what each network must keep, and what was measured of it."""

import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ..function.canary import Canary, TextCanary, text_canary
from ..host.bases import Origin
from ..modules.files import LoraFile
from ..modules.signing import signers
from .arms import Arms, known
from .fasten import fasten
from .in_function import InFunction
from .lock import Lock, nobody
from .measure import Sums
from .networks import Network, Networks, patcher_of
from .on_model import weight_free_patches
from .report import lost_in, lost_of


@dataclass(frozen=True)
class Terms:
    """What the locks of one merge have in common."""

    safety: Sequence[LoraFile]
    signers: tuple[str | None, ...]
    policy: str
    base: Origin
    base_warnings: tuple[str, ...]
    tasks: tuple[object, ...]

    @classmethod
    def of(
        cls,
        safety: Sequence[LoraFile],
        policy: str,
        base: Origin,
        base_warnings: Sequence[str],
        tasks: tuple[object, ...],
    ) -> "Terms":
        return cls(safety, signers(safety), policy, base, tuple(base_warnings), tasks)

    def lock(
        self,
        network: Network[Any],
        losses: Sequence[str],
        *,
        canary: Canary | TextCanary | None,
        looks: Sequence[str] = (),
        arms: Arms | None = None,
        encodes: Callable[[], object | None] = nobody,
    ) -> Lock:
        """What must stay as it is on a merged network: all its patches, safety the last of each."""
        patcher = patcher_of(network.merged)
        return Lock(
            entries={key: list(values) for key, values in patcher.patches.items()},
            safety={
                key: patcher.patches[key][-len(by_module) :]
                for key, by_module in network.plan.sealed.items()
                if by_module
            },
            losses=tuple(losses),
            names=tuple(module.name for module in self.safety),
            digests=tuple(module.sha256 for module in self.safety),
            signers=self.signers,
            policy=self.policy,
            other_patches=tuple(weight_free_patches(patcher)),
            encodes=encodes,
            base=self.base,
            at_use=network.at_use,
            base_warnings=self.base_warnings,
            tasks=self.tasks,
            looks=tuple(looks),
            canary=canary,
            arms=arms,
        )


def lock_networks(
    networks: Networks, terms: Terms, arms: Arms, sums: Sums, function: InFunction
) -> None:
    """Fasten a lock on the merged model, and on a text encoder that holds a safety change."""
    model = networks.model
    lock = terms.lock(
        model,
        lost_of(sums, function, model.plan.changes),
        canary=function.canary,
        looks=function.looks(sums.names),
        arms=arms,
    )
    fasten(model.merged, lock)
    prompt = next((text for module in terms.safety for text in module.prompts), "a picture")
    for text in networks.texts:
        if text.plan.safety:
            lock = terms.lock(
                text,
                lost_in(sums, function, text.plan.changes),
                canary=text_canary(known(arms.encoder), prompt),
                encodes=weakref.ref(text.given.cond_stage_model),
            )
            fasten(text.merged.patcher, lock, is_clip=True)
