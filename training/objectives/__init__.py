"""Training objectives, one file each, its formula first.

A file with a `METHOD` is a way to erase a concept: it is found here by that method's name, and is a
choice of the node and of the command line. It is trained (a `Method`), or computed at once (a
`ClosedForm`). `PARTS` are parts of a loss that the two trainers put together, and what both ways
are made of.
"""

from dataclasses import dataclass

from ...options.registry import by_name, marked
from ...options.table import SAFETY, option
from .closed_form import ClosedForm
from .method import ErasureBase, Method

DEFAULT = "esd-x"
PARTS = ("adversary", "anchor", "closed_form", "half_denoised", "method", "retain", "task")
_FOUND: dict[str, Method | ClosedForm] = by_name(
    (method.name, file, method) for file, method in marked(__name__, "METHOD", PARTS, __file__)
)
METHODS = {DEFAULT: _FOUND[DEFAULT], **dict(sorted(_FOUND.items()))}


@dataclass(frozen=True)
class Erasure(ErasureBase):
    """How a concept is erased: the method, and what it is told."""

    method: str = option(
        DEFAULT,
        "How the concept is removed. "
        + "; ".join(f"{name}: {method.words}" for name, method in METHODS.items())
        + ".",
        choices=METHODS,
        of=(SAFETY,),
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(METHODS[self.method], ClosedForm):
            return
        if self.saliency < 1.0:
            raise ValueError(
                f"saliency is {self.saliency}, and the method {self.method} has no gradient to tell"
                " it by: it is a formula. Set saliency to 1, or choose another method."
            )
        if self.adversarial_steps:
            raise ValueError(
                f"adversarial_steps is {self.adversarial_steps}, and the method {self.method} has"
                " no steps to search in: it is a formula. Set adversarial_steps to 0, or choose"
                " another method."
            )
        if self.layer_pattern:
            raise ValueError(
                f"layer_pattern is {self.layer_pattern!r}, and the method {self.method} takes all"
                " layers that read the text. Choose another method, or clear layer_pattern."
            )
