"""Take out of a task's change of a weight what points against a safety module."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from .ledger import Ledger

ROUNDS = 8  # over the safety modules, when each is measured on inputs of its own


def project(
    ledger: Ledger, key: str, tasks: Sequence[int], concept: Ledger | None = None
) -> dict[int, float]:
    """Take out of these modules' changes of one weight what points against a safety module.

    What is left is dW + sum_s c_s dW_s: the least such change with <dW + sum_s c_s dW_s, dW_s> >= 0
    for every safety module s; with one of them c = max(0, -<dW, dW_s> / |dW_s|^2). `concept` has
    the same sums over what a layer sees of the concepts: there they point against none either. Both
    ledgers then count it so. Returns the sum of the c by safety module: so much more of each dW_s
    the weight then needs.
    """
    held = [i for i in sorted(ledger.safety) if ledger.squares[i].get(key, 0.0) > 0.0]
    gram = np.array([[ledger.dot(one, other, key) for other in held] for one in held])
    taken = dict.fromkeys(held, 0.0)
    for i in tasks:
        pulls = np.array([ledger.dots.get((i, s), {}).get(key, 0.0) for s in held])
        parts = _least(gram, pulls) if len(held) and pulls.min() < 0.0 else np.zeros(len(held))
        if concept is not None:
            parts = _raised(concept, key, i, dict(zip(held, parts, strict=True)))
        if not parts.any():
            continue
        ledger.squares[i][key] += float(parts @ gram @ parts + 2.0 * parts @ pulls)
        for s, part, moved in zip(held, parts, gram @ parts, strict=True):
            taken[s] += float(part)
            ledger.dots[i, s][key] += float(moved)
    return {s: part for s, part in taken.items() if part > 0.0}


def _raised(concept: Ledger, key: str, i: int, parts: Mapping[int, float]) -> np.ndarray:
    """The c_s of `project`, raised until dW + sum_s c_s dW_s points against none in these sums.

    The sums then count it so. One safety module is raised after another, since each is measured on
    inputs of its own; with one of them it is the least c.
    """
    parts = dict(parts)
    held = [s for s in parts if concept.squares.get(s, {}).get(key, 0.0) > 0.0]

    def moved(s: int) -> float:
        return math.fsum(part * concept.dot(other, s, key) for other, part in parts.items() if part)

    pulls = {s: concept.dots.get((i, s), {}).get(key, 0.0) for s in held}
    for _ in range(ROUNDS):
        for s in held:
            parts[s] += max(0.0, -(pulls[s] + moved(s)) / concept.squares[s][key])
    for s in held:
        if (i, s) in concept.dots:
            concept.dots[i, s][key] = pulls[s] + moved(s)
    return np.array([*parts.values()])


def _least(gram: np.ndarray, pulls: np.ndarray) -> np.ndarray:
    """The least c >= 0 with pulls + gram c >= 0, as non-negative least squares."""
    from scipy.optimize import nnls  # a requirement of ComfyUI; here: a second to import

    values, vectors = np.linalg.eigh(gram)
    sizes = np.sqrt(values.clip(min=0.0))
    root = vectors * sizes @ vectors.T
    inverse = (
        vectors
        * np.divide(1.0, sizes, out=np.zeros_like(sizes), where=sizes > sizes.max() * 1e-7)
        @ vectors.T
    )
    return nnls(root, -inverse @ pulls)[0]
