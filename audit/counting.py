"""One counting rule: which classes of which detector count, from which score, in what unit."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Any

from pydantic import Field

from ..options.choices import chosen
from ..options.errors import PackError
from ..options.language import phrase
from .classes import NUDENET

UNITS = {
    "images": phrase("pictures with at least one counted detection"),
    "detections": phrase("counted detections"),
    "images per class": phrase("pictures with at least one counted detection, by class"),
}
ORDERS = ("rgb", "bgr")
Score = Annotated[float, Field(ge=0.0, le=1.0)]


class PresetError(PackError, ValueError):
    """A counting rule can't be used as it is written."""


@dataclass(frozen=True)
class Ask:
    """A second preset, which decides where the best score of the first is no more than likely.

    That is: from `low` on, and up to `high`, or to where the class counts.
    """

    preset: "Preset"
    low: float
    high: float | None = None


@dataclass(frozen=True)
class Preset:
    """One counting rule; `thresholds` maps each counted class to the score from which it counts.

    What is smaller than `min_size` does not count: the larger of its width as a share of the
    picture's and its height as a share of the picture's. Raises PresetError for one that counts no
    class, a score outside 0..1 or an `ask` that decides what is sure, ChoiceError for words that
    there are not.
    """

    name: str
    title: str
    source: str
    thresholds: dict[str, float]
    unit: str = "images"
    channel_order: str = "rgb"
    detector: str = NUDENET
    min_size: float = 0.0
    ask: Ask | None = None

    def __post_init__(self) -> None:
        if not self.thresholds:
            raise PresetError(
                f"The preset {self.name!r} counts no class; name one, or leave classes empty."
            )
        for label, value in {**self.thresholds, "min_size": self.min_size}.items():
            check_score(label, value)
        chosen(self.unit, UNITS, "unit")
        chosen(self.channel_order, ORDERS, "channel_order")
        if self.ask:
            self._check_ask(self.ask)

    def _check_ask(self, ask: Ask) -> None:
        low, high = min(self.thresholds.values()), max(self.thresholds.values())
        both = sorted(self.thresholds.keys() & ask.preset.thresholds.keys())
        fault = (
            f"it asks {ask.preset.name!r}, which asks another one"
            if ask.preset.ask
            else f"it and {ask.preset.name!r}, which it asks, both count {both[0]}"
            if both
            else f"it asks from {ask.low:g} on, but counts from {low:g} on"
            if ask.low > low
            else f"it asks up to {ask.high:g}, but counts from {high:g} on"
            if ask.high is not None and ask.high < high
            else ""
        )
        if fault:
            raise PresetError(f"The preset {self.name!r}: {fault}.")

    def counts(self, detected_class: str, score: float, size: float = 1.0) -> bool:
        """Whether a detection counts; `size` is as `min_size`."""
        return score >= self.counted_from.get(detected_class, math.inf) and size >= self.min_size

    def is_unsure(self, found: Sequence[Mapping[str, Any]]) -> bool:
        """Whether the second preset is to be asked about a picture in which this was found."""
        if self.ask is None:
            return False
        able = [
            each
            for each in found
            if each["class"] in self.thresholds and each.get("size", 1.0) >= self.min_size
        ]
        sure = any(
            each["score"] >= (self.ask.high or self.thresholds[each["class"]]) for each in able
        )
        return not sure and max((each["score"] for each in able), default=0.0) >= self.ask.low

    @property
    def counted_from(self) -> dict[str, float]:
        """The score from which each class counts, those of the asked one too."""
        return self.thresholds | (self.ask.preset.thresholds if self.ask else {})

    def identity(self) -> dict[str, Any]:
        """The rule as plain data; what is newer than stores that exist, only where it is used."""
        unused = [name for name in ("min_size", "ask") if not getattr(self, name)]
        return {name: value for name, value in asdict(self).items() if name not in unused}


def check_score(label: str, value: object) -> None:
    if (
        isinstance(value, bool)
        or not isinstance(value, (int, float))
        or not (math.isfinite(value) and 0 <= value <= 1)
    ):
        raise PresetError(f"The threshold of {label} is {value!r}; it must lie between 0 and 1.")
