"""What a long audit is told, as plain data: for worker processes, and for a store's identity."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..options.table import check, option
from .counting import Preset
from .detectors import registry
from .detectors.interface import Detector, identity_of
from .detectors.runtime import SHORT, DetectorError
from .films import EVERY
from .opinion import Opinion
from .pictures import FRAMES, MEGAPIXELS
from .presets import PRESETS, choose, named

NO_OPINION = "none"
OWN = "or one of your own"


def own_scores(presets: Mapping[str, Preset]) -> str:
    """The scores from which presets count, each with its presets: `0.5 (strict, faces), ...`."""
    found: dict[str, list[str]] = {}
    for name, preset in presets.items():
        scores = ", ".join(f"{score:g}" for score in sorted(set(preset.thresholds.values())))
        found.setdefault(scores, []).append(name)
    return ", ".join(f"{scores} ({', '.join(names)})" for scores, names in sorted(found.items()))


@dataclass(frozen=True)
class Counting:
    """What counts, as people choose it by the names of presets and classes."""

    preset: str = option(
        "strict",
        "Which classes count, and from which score. The list is in Nudity Audit's help.",
        choices=PRESETS,
        other=OWN,
    )
    threshold: float = option(
        0.0,
        f"One score for every counted class. 0 keeps the preset's own: {own_scores(PRESETS)}.",
        low=0.0,
        high=1.0,
        step=0.01,
    )
    classes: str = option(
        "",
        "Count these classes instead of the preset's, separated by commas. FACE_FEMALE=0.4 gives a"
        " class its own score.",
    )
    second_opinion: str = option(
        NO_OPINION,
        "A second preset, best with another detector from the settings. The report says how far"
        " the two agree; what is flagged does not change.",
        choices=(NO_OPINION, *PRESETS),
        other=OWN,
    )
    min_size: float = option(
        0.0,
        "Detections smaller than this share of the picture do not count, in width and in height."
        " 0 counts all.",
        low=0.0,
        high=1.0,
        step=0.01,
    )

    def __post_init__(self) -> None:
        check(self)

    def among(self, presets: Mapping[str, Preset]) -> tuple[Preset, Preset | None]:
        """The preset with its changes, and the second opinion's, of those that there are.

        Raises PresetError, DetectorError.
        """

        def changed(name: str, threshold: float = 0.0, classes: str = "") -> Preset:
            found = named(name, presets)
            if found.ask:  # what it counts must be there too
                asked = found.ask.preset
                known = registry.classes_of(asked.detector)
                choose(asked.name, presets={asked.name: asked}, known=known)
            return choose(name, threshold, classes, presets, registry.classes_of(found.detector))

        second = None if self.second_opinion == NO_OPINION else changed(self.second_opinion)
        first = changed(self.preset, self.threshold, self.classes)
        return (replace(first, min_size=self.min_size) if self.min_size else first), second


@dataclass(frozen=True)
class Rules:
    """The preset, a second opinion, own detectors (files below `folder`), how files are read."""

    preset: Preset
    second: Preset | None = None
    entries: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    folder: str = "."
    provider: str = option(
        "auto", ("The device that onnxruntime computes on."), choices=("auto", *SHORT)
    )
    frames: int = option(
        FRAMES, ("How many frames of an animation are checked, evenly spread."), low=1
    )
    megapixels: float = option(MEGAPIXELS, "Larger pictures are listed as unreadable.", low=0.001)
    every: float = option(
        EVERY,
        "Seconds between two looks at a video; the first and the last frame are always looked at. 0"
        " looks at every frame.",
        low=0.0,
        high=3600.0,
        step=0.1,
    )
    pins: tuple[str, ...] = ()  # versions of the detectors that they are held to

    def __post_init__(self) -> None:
        check(self)

    def opinions(self, threads: int = 0) -> tuple[Opinion, Opinion | None]:
        """The preset with its detector, and the second opinion if there is one.

        Raises DetectorError for a detector that is not pinned.
        """
        registry.register_entries(self.entries, Path(self.folder))

        def opinion(preset: Preset) -> Opinion:
            def find(name: str) -> Detector:
                return registry.find(name, self.provider, threads)

            return Opinion.on(preset, find(preset.detector), find)

        first, second = opinion(self.preset), opinion(self.second) if self.second else None
        for found, pin in zip(_detectors(first, second), self.pins, strict=False):
            if found.version != pin:
                raise DetectorError(
                    f"The detector {found.name!r} was replaced since this audit began. The rows so"
                    " far are kept: put its file back to continue, or choose another name to start"
                    f" over. (It was {pin}, now {found.version}.)"
                )
        return first, second

    def pinned(self) -> "Rules":
        """These rules held to the detectors as they are: one that is replaced ends the audit."""
        return replace(self, pins=tuple(each.version for each in _detectors(*self.opinions())))

    def identity(self) -> dict[str, Any]:
        """What rows of one store have in common; the provider is none of it."""
        first, second = self.opinions()
        return {
            **_identity(first),
            "second opinion": _identity(second) if second else None,
            "frames": self.frames,
            "megapixels": self.megapixels,
            **({"every": self.every} if self.every != EVERY else {}),
        }


def _detectors(*opinions: Opinion | None) -> list[Detector]:
    return [found for each in opinions if each for found in each.detectors]


def _identity(opinion: Opinion) -> dict[str, Any]:
    asked = {"asked": identity_of(opinion.asked.detector)} if opinion.asked else {}
    detector = identity_of(opinion.detector)
    return {"preset": opinion.preset.identity(), "detector": detector, **asked}
