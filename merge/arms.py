"""The models that a merge is compared with in function: its base, and each safety module alone."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import CallbacksMP

from ..function.measure import Arm
from ..function.network import bare
from ..function.texts import encoded
from ..host.bases import Origin
from ..host.comfy_types import Clip
from .entries import Entry
from .networks import Networks
from .on_model import foreign_changes
from .plan import Plan
from .rounding import hold_at_use


@dataclass(frozen=True)
class Arms:
    """What a merge was made of, without what it made: a lock holds this, and lies on that.

    `encoder` is its text encoder with everything on it, and no lock; `plans` are the model's and
    the text encoder's, `identity` what came onto the model, by digests; None where something has
    none.
    """

    model: ModelPatcher
    clip: Clip | None
    encoder: Clip | None
    plans: tuple[Plan, Plan]
    origin: Origin
    at_use: frozenset[str] = frozenset()
    identity: str | None = None

    @classmethod
    def of(cls, networks: Networks, origin: Origin, identity: str | None) -> "Arms":
        model, entries = networks.model, networks.model.plan.entries
        text = next((each.plan for each in networks.texts), Plan(entries))
        return cls(
            model.given,
            networks.clip,
            networks.encoder,
            (model.plan, text),
            origin,
            at_use=model.at_use,
            identity=identity,
        )

    @property
    def entries(self) -> Sequence[Entry]:
        return self.plans[0].entries

    def base(self, prompts: Iterable[str]) -> Arm:
        """The base as it was loaded."""
        return Arm(bare(self.model), encoded(self._base_clip(), prompts))

    def safe(self, s: int, prompts: Iterable[str]) -> Arm:
        """The base with one safety module, held as the lock holds it."""
        model, clip = bare(self.model), self._base_clip()
        on_model, on_text = self.plans
        on_model.put_safety_on(model, s)
        model.add_callback_with_key(
            CallbacksMP.ON_LOAD, "msl_at_use", lambda each, *_, **__: hold_at_use(each, self.at_use)
        )
        if on_text.holds(s):
            clip = clip.clone()
            on_text.put_safety_on(clip.patcher, s)
        return Arm(model, encoded(clip, prompts))

    def merged(self, model: ModelPatcher, prompts: Iterable[str]) -> Arm:
        """A model of this merge, with what its text encoder gives."""
        return Arm(model, encoded(known(self.encoder), prompts))

    def _base_clip(self) -> Clip:
        clip = known(self.clip)
        if not clip.patcher.patches and not foreign_changes(clip.patcher):
            return clip
        clip = clip.clone()
        clip.patcher = bare(clip.patcher)
        return clip


def known(clip: Clip | None) -> Clip:
    """A text encoder that must be there: without one, nothing is asked of a network."""
    if clip is None:
        raise ValueError("This merge has no text encoder: no prompt can be encoded for it.")
    return clip
