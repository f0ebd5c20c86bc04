"""One weight's difference as what a LoRA file holds: dW = W_safe - W0.

The best change of rank r is U_r U_r^T dW (Eckart and Young 1936), U the eigenvectors of dW dW^T.
What it keeps is 1 - |dW - BA|^2 / |dW|^2, measured on the factors as the file holds them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from .settings import FULL, RANK, Extraction

MORE, TURNS = 8, 4  # of the random search for a few directions: columns, and turns


@dataclass(frozen=True)
class Difference:
    """What the file holds of one weight.

    `parts` are its tensors by the end of their name; `square` is |dW|^2, `lost` |dW - BA|^2, `base`
    |W0|^2, and `rounding` the |dW|^2 that rounding alone makes. `rank` is 0 for a full one.
    """

    parts: Mapping[str, torch.Tensor] = field(default_factory=dict)
    square: float = 0.0
    lost: float = 0.0
    base: float = 0.0
    rounding: float = 0.0
    rank: int = 0


def difference(
    w0: torch.Tensor, safe: torch.Tensor, coarsest: torch.dtype, how: Extraction
) -> Difference | None:
    """The difference of a weight from the base's, both float32; None where they are equal.

    They are equal where one is the other, rounded to the `coarsest` dtype that either was held in.
    """
    if torch.equal(w0.to(coarsest), safe.to(coarsest)):
        return None
    change = safe - w0
    factors = None if how.form == FULL or change.ndim < 2 else low_rank(change, how)
    parts = {"diff": change.to(how.dtype)} if factors is None else _held(factors, how.dtype)
    kept = _product(parts) if factors else parts["diff"].float()
    return Difference(
        parts={name: value.cpu() for name, value in parts.items()},
        square=_square(change),
        lost=_square(change - kept.reshape(change.shape)),
        base=_square(w0),
        rounding=rounding_of(w0, coarsest),
        rank=len(parts["lora_A.weight"]) if factors else 0,
    )


def low_rank(change: torch.Tensor, how: Extraction) -> tuple[torch.Tensor, torch.Tensor] | None:
    """B (out, r, 1, ...) and A (r, in, ...) of a change (out, in, ...), of equal size each.

    None where they would hold as many numbers as the change itself.
    """
    rows = change.flatten(1)  # (out, in)
    left, values = _few(rows, how.rank) if how.form == RANK else _all(rows)
    if how.form == RANK:
        rank = min(how.rank, len(values))
    else:
        shares = values.cumsum(0) / values.sum()
        rank = int((shares < how.keep).sum().item()) + 1
    if rank * (rows.shape[0] + rows.shape[1]) >= rows.numel():
        return None
    left, sizes = left[:, :rank], values[:rank].clamp(min=0).pow(0.25)
    sizes = torch.where(sizes > 0, sizes, 1.0)
    up, down = left * sizes, (left.T @ rows) / sizes[:, None]
    return (
        up.reshape(*up.shape, *[1] * (change.ndim - 2)),
        down.reshape(rank, *change.shape[1:]),
    )


def rounding_of(weight: torch.Tensor, dtype: torch.dtype) -> float:
    """|error|^2 of rounding a weight to a dtype: a twelfth of the square of the last place."""
    about = torch.finfo(dtype)
    _, exponent = torch.frexp(weight.abs().clamp(min=about.tiny))
    return _square(about.eps * torch.exp2(exponent - 1.0)) / 12.0


def _all(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Left singular vectors (out, n) and squared singular values (n,), the largest first."""
    if rows.shape[0] <= rows.shape[1]:
        values, left = _eigen(rows @ rows.T)
        return left, values
    values, right = _eigen(rows.T @ rows)
    left = rows @ right
    return left / left.norm(dim=0).clamp(min=torch.finfo(left.dtype).tiny), values


def _eigen(gram: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    # float64: small values drown in float32's errors; on the CPU where a device has none (Apple's)
    device = torch.device("cpu") if gram.device.type == "mps" else gram.device
    values, vectors = torch.linalg.eigh(gram.to(device).double())
    return values.flip(0).float().to(gram.device), vectors.flip(1).float().to(gram.device)


def _few(rows: torch.Tensor, rank: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The same for a few of the largest, by a seeded random search where that is quicker."""
    columns = rank + MORE
    if 4 * columns > min(rows.shape):
        return _all(rows)
    with torch.random.fork_rng([rows.device] if rows.is_cuda else []):
        torch.manual_seed(0)
        left, values, _ = torch.svd_lowrank(rows, columns, TURNS)
    return left, values.square()


def _held(
    factors: tuple[torch.Tensor, torch.Tensor], dtype: torch.dtype
) -> dict[str, torch.Tensor]:
    up, down = (each.to(dtype).contiguous() for each in factors)
    return {"lora_A.weight": down, "lora_B.weight": up}


def _product(parts: Mapping[str, torch.Tensor]) -> torch.Tensor:
    up, down = parts["lora_B.weight"], parts["lora_A.weight"]
    return up.float().flatten(1) @ down.float().flatten(1)


def _square(values: torch.Tensor) -> float:
    return (
        values.double().square().sum().item()
        if values.device.type != "mps"
        else (values.square().sum().item())
    )
