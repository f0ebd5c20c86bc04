"""The models that a merge is compared with in function: its base, and each safety module alone."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import CallbacksMP

from ..function.measure import Arm
from ..function.network import bare
from ..function.texts import encoded
from ..host.bases import Origin
from .entries import Entry
from .on_model import foreign_changes
from .plan import Plan, Sealed, put_on
from .rounding import hold_at_use


@dataclass(frozen=True)
class Arms:
    """What a merge was made of. `encoder` is its text encoder with everything on it, and no lock.

    `plans` and what lies on weights are the model's and the text encoder's, `identity` what else
    came onto the model, by digests; None where something has none.
    """

    model: ModelPatcher
    clip: object
    encoder: object
    plans: Sequence[Plan]
    entries: Sequence[Entry]
    sealed: Sealed
    origin: Origin
    at_use: frozenset[str] = frozenset()
    identity: str | None = None

    def base(self, prompts: Iterable[str]) -> Arm:
        """The base as it was loaded."""
        return Arm(bare(self.model), encoded(self._base_clip(), prompts))

    def safe(self, safe: int, prompts: Iterable[str]) -> Arm:
        """The base with one safety module, held as the lock holds it."""
        model, clip = bare(self.model), self._base_clip()
        self._put(model, self.plans[0], safe)
        model.add_callback_with_key(
            CallbacksMP.ON_LOAD, "msl_at_use", lambda each, *_, **__: hold_at_use(each, self.at_use)
        )
        if any(safe in self.sealed[key] for key in self.plans[1]):
            clip = clip.clone()
            self._put(clip.patcher, self.plans[1], safe)
        return Arm(model, encoded(clip, prompts))

    def merged(self, model: ModelPatcher, prompts: Iterable[str]) -> Arm:
        """A model of this merge, with what its text encoder gives."""
        return Arm(model, encoded(self.encoder, prompts))

    def _base_clip(self) -> object:
        if not self.clip.patcher.patches and not foreign_changes(self.clip.patcher):
            return self.clip
        clip = self.clip.clone()
        clip.patcher = bare(clip.patcher)
        return clip

    def _put(self, patcher: ModelPatcher, plan: Plan, safe: int) -> None:
        """The safety module's changes alone."""
        own = {
            key: {safe: self.sealed[key][safe]} if safe in self.sealed[key] else {} for key in plan
        }
        put_on(patcher, dict.fromkeys(own, ()), self.entries, own, {})
