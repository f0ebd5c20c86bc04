"""What an adapter is told: rank, alpha and kind; the fields are rows of the table of options."""

from dataclasses import dataclass

from ..options.table import TASK, check, option


@dataclass(frozen=True)
class AdapterSettings:
    """Settings of an adapter, whose change is alpha/r B A (Hu et al. 2021).

    With rsLoRA it is alpha/sqrt(r) B A (Kalajdzievski 2023).
    """

    rank: int = option(
        4, "Rank of the LoRA: how much it can learn. 4 is the paper's.", low=1, high=1024
    )
    alpha: float = option(0.0, "Alpha of the LoRA; 0: the same as rank.", low=0.0, high=1024.0)
    dropout: float = option(
        0.0, ("Dropout on the LoRA's input."), low=0.0, high=0.9, step=0.01, of=(TASK,)
    )
    use_rslora: bool = option(False, "Scale by alpha / sqrt(rank).", name="rslora", of=(TASK,))
    use_dora: bool = option(
        False, "Train a DoRA, which also learns magnitudes.", name="dora", of=(TASK,)
    )

    def __post_init__(self) -> None:
        check(self)
        if not self.alpha:
            object.__setattr__(self, "alpha", float(self.rank))

    @property
    def scale(self) -> float:
        return self.alpha / (self.rank**0.5 if self.use_rslora else self.rank)
