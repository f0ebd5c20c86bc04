"""Take out of a task's change of a weight what points against a safety module."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from .ledger import Ledger

ROUNDS = 8  # over the safety modules, when each is measured on inputs of its own


def project(
    ledger: Ledger, key: str, numbers: Sequence[int], seen: Ledger | None = None
) -> dict[int, float]:
    """Take out of these modules' changes of one weight what points against a safety module.

    What is left is dW + sum_s c_s dW_s: the least such change with <dW + sum_s c_s dW_s, dW_s> >= 0
    for every safety module s; with one of them c = max(0, -<dW, dW_s> / |dW_s|^2). `seen` has the
    same sums over what a layer sees of the concepts: there they point against none either. Both
    ledgers then count it so. Returns the sum of the c by safety module: so much more of each dW_s
    the weight then needs.
    """
    held = [
        number for number in sorted(ledger.safety) if ledger.squares[number].get(key, 0.0) > 0.0
    ]
    gram = np.array([[ledger.dot(one, other, key) for other in held] for one in held])
    taken = dict.fromkeys(held, 0.0)
    for number in numbers:
        pulls = np.array([ledger.dots.get((number, safe), {}).get(key, 0.0) for safe in held])
        parts = _least(gram, pulls) if len(held) and pulls.min() < 0.0 else np.zeros(len(held))
        if seen is not None:
            parts = _raised(seen, key, number, dict(zip(held, parts, strict=True)))
        if not parts.any():
            continue
        ledger.squares[number][key] += float(parts @ gram @ parts + 2.0 * parts @ pulls)
        for safe, part, moved in zip(held, parts, gram @ parts, strict=True):
            taken[safe] += float(part)
            ledger.dots[number, safe][key] += float(moved)
    return {safe: part for safe, part in taken.items() if part > 0.0}


def _raised(seen: Ledger, key: str, number: int, parts: Mapping[int, float]) -> np.ndarray:
    """The c_s of `project`, raised until dW + sum_s c_s dW_s points against none in these sums.

    The sums then count it so. One safety module is raised after another, since each is measured on
    inputs of its own; with one of them it is the least c.
    """
    parts = dict(parts)
    held = [safe for safe in parts if seen.squares.get(safe, {}).get(key, 0.0) > 0.0]

    def moved(safe: int) -> float:
        return math.fsum(part * seen.dot(other, safe, key) for other, part in parts.items() if part)

    pulls = {safe: seen.dots.get((number, safe), {}).get(key, 0.0) for safe in held}
    for _ in range(ROUNDS):
        for safe in held:
            parts[safe] += max(0.0, -(pulls[safe] + moved(safe)) / seen.squares[safe][key])
    for safe in held:
        if (number, safe) in seen.dots:
            seen.dots[number, safe][key] = pulls[safe] + moved(safe)
    return np.array([*parts.values()])


def _least(gram: np.ndarray, pulls: np.ndarray) -> np.ndarray:
    """The least c >= 0 with pulls + gram c >= 0.

    It is min c^T gram c / 2 + pulls^T c, as non-negative least squares.
    """
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
