"""What a run is asked for, what safety and task LoRAs differ in, and what a run gives."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from comfy.model_patcher import ModelPatcher
from PIL import Image

from ...host.comfy_types import Conditioning
from ...host.denoiser import Denoiser
from ...merge.merge import Merged
from ...modules.files import LoraFile
from ..objectives.closed_form import ClosedForm
from ..targets import Roles
from .adapters import Adapters
from .batch import LossOf
from .checkpoint import Progress
from .ema import Ema
from .previews import Previews
from .processes import ALONE, Share


@dataclass(frozen=True)
class TrainingJob:
    """Where a run writes, how often, what it shows, and on which processes it runs."""

    output: Path
    save_every: int = 0
    resume: bool = False
    on_step: Callable[[Progress], bool] = lambda progress: True
    previews: Previews | None = None
    on_preview: Callable[[Image.Image], None] = lambda picture: None
    share: Share = ALONE


class Written(Protocol):
    """What a run's file says, and how its module is meant to be used."""

    @property
    def role(self) -> str: ...

    def metadata(self, progress: Progress) -> Mapping[str, str]:
        """What the file says of the run."""

    def previewed(self, model: ModelPatcher, module: LoraFile | None) -> Merged:
        """The module (None: untrained) merged with a model as it is meant to be used."""


class Kind(Written, Protocol):
    """What the runs of safety and task LoRAs differ in, where they are trained.

    `held` are the safety modules in the forward pass while it trains, `buckets` numbers of pictures
    or prompts that may share a batch, `identity` what a checkpoint must have in common with the run
    that goes on from it, `example` a conditioning that the network takes, `saliency` the share of
    its layers' weights that may change (saliency.py).
    """

    @property
    def held(self) -> Sequence[LoraFile]: ...

    @property
    def buckets(self) -> Sequence[Sequence[int]]: ...

    @property
    def identity(self) -> str: ...

    @property
    def example(self) -> Conditioning: ...

    @property
    def saliency(self) -> float: ...

    def layers(self, network: torch.nn.Module, roles: Roles) -> list[str]:
        """The names of the layers that are trained."""

    def loss_of(self, denoiser: Denoiser, adapters: Adapters, ema: Ema | None) -> LossOf:
        """The loss of a batch, part by part."""


class Computed(Written, Protocol):
    """A run that computes a closed form, without steps of an optimizer.

    `pairs` are the conditionings of each of the concept's prompts and of what is drawn in its
    place, `kept` those of what stays, the empty prompt last; `preserve` is how much these count.
    """

    @property
    def method(self) -> ClosedForm: ...

    @property
    def pairs(self) -> Sequence[tuple[Conditioning, Conditioning]]: ...

    @property
    def kept(self) -> Sequence[Conditioning]: ...

    @property
    def preserve(self) -> float: ...


@dataclass(frozen=True)
class Result:
    """What a run gave: the module as read back, where it stood, its chart, a JSON-ready report."""

    module: LoraFile
    progress: Progress
    plot: Image.Image
    report: dict[str, Any]
