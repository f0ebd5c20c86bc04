"""Retained safety, rho = <dW_total, dW_safety> / |dW_safety|^2, and the sizes of changes.

Both are over all weights of a network, and the least of the two networks, the diffusion model and
the text encoder, counts: what is left in one does not make up for the other. For low-rank pairs
<B1 A1, B2 A2> = sum((B1^T B2) * (A1 A2^T)): nothing dense is made.
"""

import math
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import torch

from .changes import LowRank

THRESHOLD = 0.9  # of retained safety over all weights (docs/threat-model.md)
LEAST_SIZE = 0.001  # of |dW| / |W0| of a safety module (docs/threat-model.md)
SCALE = (0.5, 2.0)  # of |W0 + dW_total| / |W0| over the weights that a safety module changes
# of retained safety in every single weight: task modules that mean no harm vary there
LAYER_THRESHOLD = 0.5
EXISTING = -1  # the index of what already sat on the model; modules count from 0


def inner(a: LowRank | torch.Tensor, b: LowRank | torch.Tensor) -> float:
    """Frobenius inner product of two changes of one weight, each dense or low-rank."""
    if not isinstance(a, LowRank):
        if isinstance(b, LowRank):
            return inner(b, a)
        return torch.dot(a.reshape(-1), b.reshape(-1)).item()
    if isinstance(b, LowRank):
        return torch.sum((a.up.T @ b.up) * (a.down @ b.down.T)).item()
    return torch.sum((a.up.T @ b.reshape(b.shape[0], -1)) * a.down).item()


def by_network(keys: Iterable[str]) -> list[list[str]]:
    """Weights of the diffusion model and of the text encoder, apart; those that there are."""
    found: dict[bool, list[str]] = {}
    for key in keys:
        found.setdefault(key.startswith("diffusion_model."), []).append(key)
    return list(found.values())


@dataclass
class Ledger:
    """Sums over the weights seen so far, by module i, of which s is a safety module.

    They are sizes, and how each module pulls on each safety module. Every safety module is held on
    its own. What another safety module pulls against it counts; what another one adds along it does
    not, since that is there for a purpose of its own: no safety module pays for what a task takes
    from another.
    """

    # |dW_i|^2 by module and weight
    squares: dict[int, dict[str, float]] = field(default_factory=dict)
    bases: dict[str, float] = field(default_factory=dict)  # |W0|^2 by weight
    # <dW_i, dW_s> by (i, s) and weight
    dots: dict[tuple[int, int], dict[str, float]] = field(default_factory=dict)
    safety: set[int] = field(default_factory=set)
    # |W0 + dW_total|^2 by weight, where it may lie far from |W0|^2
    sums: dict[str, float] = field(default_factory=dict)

    def add(
        self,
        key: str,
        base_square: float,
        safety: Mapping[int, LowRank | torch.Tensor],
        others: Mapping[int, LowRank | torch.Tensor],
    ) -> None:
        """Count one weight: its own |W0|^2 and the changes on it, by module."""
        self.bases[key] = base_square
        self.safety |= safety.keys()
        changes = {**safety, **others}
        for i, change in changes.items():
            self.squares.setdefault(i, {})[key] = inner(change, change)
            for s in safety.keys() - {i}:
                self.dots.setdefault((i, s), {})[key] = inner(change, safety[s])

    def may_be_rescaled(self, key: str) -> bool:
        """Whether the changes of a weight that a safety module holds rival its own size."""
        held = any(key in self.squares[s] for s in self.safety)
        sizes = (math.sqrt(max(squares.get(key, 0.0), 0.0)) for squares in self.squares.values())
        return held and not math.fsum(sizes) <= SCALE[0] * math.sqrt(self.bases[key])

    def scale(self, s: int) -> float:
        """|W0 + dW_total| / |W0| over the weights of a network that a safety module holds.

        Its change is small beside weights that are scaled up, and the network can be told to scale
        back what they give.
        """
        found = []
        for keys in by_network(self.squares[s]):
            base = math.fsum(self.bases[key] for key in keys)
            now = math.fsum(self.sums.get(key, self.bases[key]) for key in keys)
            found.append(math.sqrt(now / base) if base else 1.0)
        # the farthest from 1, either way; nan is
        return max(found, key=lambda ratio: abs(math.log(ratio)) if ratio > 0 else math.inf)

    def relative_size(self, i: int) -> float:
        """|dW| / |W0| of one module, over the weights that it changes."""
        changed = self.squares.get(i, {})
        base = math.fsum(self.bases[key] for key in changed)
        return math.sqrt(max(math.fsum(changed.values()), 0.0) / base) if base else 0.0

    def is_finite(self, i: int) -> bool:
        return math.isfinite(math.fsum(self.squares.get(i, {}).values()))

    def changes_anything(self, i: int) -> bool:
        return any(square > 0.0 for square in self.squares.get(i, {}).values())

    def dot(self, one: int, other: int, key: str) -> float:
        """<dW_one, dW_other> in one weight, of two safety modules, or |dW_one|^2."""
        return self.squares[one][key] if one == other else self.dots[one, other][key]

    def interference(self, i: int, s: int) -> dict[str, float] | None:
        """How one module pulls against a safety module; None when it does so nowhere.

        Retained safety with it alone, and the cosine of the two changes.
        """
        shared = self.dots.get((i, s))
        if not shared or i == s:
            return None
        dot = math.fsum(shared.values())
        size, square = (math.fsum(self.squares[each][key] for key in shared) for each in (i, s))
        alone = self.squares[s] | {key: self._left(s, key, pull) for key, pull in shared.items()}
        return {
            "retained_safety": self._least(s, alone),
            "cosine": dot / math.sqrt(size * square) if size * square > 0 else 0.0,
        }

    def retained_with(self, i: int, s: int) -> dict[str, float]:
        """Retained safety with this module alone of each weight that both change, least first."""
        held = self.squares.get(s, {})
        shared = self.dots.get((i, s), {})
        alone = {key: 1.0 + dot / held[key] for key, dot in shared.items() if held[key] > 0}
        return dict(sorted(alone.items(), key=lambda item: item[1]))

    def retained(self, s: int, among: Collection[int] | None = None) -> float:
        """rho of one safety module over all its weights, in the network that keeps less of it.

        It is 1.0 for the safe base, 0 when something cancels it out. A weight counts at most what
        it holds: more of the change in one does not make up for less in another. `among` are the
        modules beside it that count; all of them when it is None.
        """
        by_layer, squares = self.retained_by_layer(s, among), self.squares[s]
        return self._least(s, {key: min(rho, 1.0) * squares[key] for key, rho in by_layer.items()})

    def _least(self, s: int, left: Mapping[str, float]) -> float:
        """The least share of a module in its networks; `left` says how much each weight keeps.

        A network in which the module changes nothing has no share.
        """
        found = []
        for keys in by_network(self.squares[s]):
            square = math.fsum(self.squares[s][key] for key in keys)
            if square != 0:
                found.append(math.fsum(left.get(key, 0.0) for key in keys) / square)
        return min(found, default=0.0) if not any(map(math.isnan, found)) else math.nan

    def retained_by_layer(self, s: int, among: Collection[int] | None = None) -> dict[str, float]:
        """rho of one safety module per weight, for the weights that it really changes."""
        pulls = list(self._pulls(s, among))
        return {
            key: (1.0 + math.fsum(self._pull(i, dots.get(key, 0.0)) for i, dots in pulls) / square)
            for key, square in self.squares[s].items()
            if square > 0
        }

    def _left(self, s: int, key: str, pull: float) -> float:
        """What counts of a safety module in one weight, beside a pull: at most its own square."""
        return self.squares[s][key] + min(pull, 0.0)

    def _pulls(
        self, s: int, among: Collection[int] | None
    ) -> Iterator[tuple[int, dict[str, float]]]:
        for (i, held), dots in self.dots.items():
            if held == s and (among is None or i in among):
                yield i, dots

    def _pull(self, i: int, dot: float) -> float:
        return min(dot, 0.0) if i in self.safety else dot


def losses(ledger: Ledger, s: int, name: str) -> list[str]:
    """What of one safety module is under the thresholds over all its weights, in words."""
    rho = ledger.retained(s)
    # not (a < b): a number that is none counts as lost
    found = (
        [] if rho >= THRESHOLD else [f"retained safety of {name} is {rho:.3f}, under {THRESHOLD}"]
    )
    scale = ledger.scale(s)
    if not SCALE[0] <= scale <= SCALE[1]:
        found.append(
            f"the weights that hold {name} are {scale:.3g} times their loaded size; {SCALE[0]} to"
            f" {SCALE[1]} times is allowed"
        )
    return found


def layer_losses(
    ledger: Ledger, s: int, name: str, keys: Collection[str] | None = None
) -> list[str]:
    """In which of its weights (or of `keys`) less than half of it is left, in words."""
    layers = {
        key: rho for key, rho in ledger.retained_by_layer(s).items() if keys is None or key in keys
    }
    low = [(rho, key) for key, rho in layers.items() if not rho >= LAYER_THRESHOLD]
    return [
        f"retained safety of {name} is {rho:.3f}, under {LAYER_THRESHOLD}, in {key}"
        for rho, key in sorted(low)
    ]
