"""What people choose of an extraction. Needs no ComfyUI."""

from dataclasses import dataclass

import torch

from ..options.table import check, option

SHARE, RANK, FULL = "share", "rank", "full"
PRECISIONS = {"bf16": torch.bfloat16, "fp32": torch.float32}


@dataclass(frozen=True)
class Extraction:
    """How much of a difference is kept, and how it is held in the file."""

    form: str = option(
        SHARE,
        "How the difference is kept. share: each layer gets the least rank that keeps the share"
        " below; rank: each layer gets the rank below; full: all of it, in a large file.",
        choices=(SHARE, RANK, FULL),
    )
    keep: float = option(
        0.95,
        "With form share: how much of each layer's change is kept, of its squared size.",
        low=0.01,
        high=1.0,
        step=0.01,
    )
    rank: int = option(32, "With form rank: the rank of each layer.", low=1, high=4096)
    precision: str = option(
        "bf16", "How the file holds its numbers.", choices=PRECISIONS, name="file_precision"
    )

    def __post_init__(self) -> None:
        check(self)

    @property
    def dtype(self) -> torch.dtype:
        return PRECISIONS[self.precision]
