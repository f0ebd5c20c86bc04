"""What a long audit is told, as plain data: for worker processes, and for a store's identity."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from ..options.table import check, option
from .detectors import registry
from .detectors.interface import identity_of
from .detectors.runtime import SHORT, DetectorError
from .pictures import FRAMES, MEGAPIXELS
from .presets import PRESETS, Preset, choose, named
from .report import Opinion

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

    def __post_init__(self) -> None:
        check(self)

    def among(self, presets: Mapping[str, Preset]) -> tuple[Preset, Preset | None]:
        """The preset with its changes, and the second opinion's, of those that there are.

        Raises PresetError, DetectorError.
        """

        def changed(name: str, threshold: float = 0.0, classes: str = "") -> Preset:
            known = registry.classes_of(named(name, presets).detector)
            return choose(name, threshold, classes, presets, known)

        second = None if self.second_opinion == NO_OPINION else changed(self.second_opinion)
        return changed(self.preset, self.threshold, self.classes), second


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
    pins: tuple[str, ...] = ()  # versions of the detectors that they are held to

    def __post_init__(self) -> None:
        check(self)

    def opinions(self, threads: int = 0) -> tuple[Opinion, Opinion | None]:
        """The preset with its detector, and the second opinion if there is one.

        Raises DetectorError for a detector that is not pinned.
        """
        registry.register_entries(self.entries, Path(self.folder))

        def opinion(preset: Preset) -> Opinion:
            return Opinion(preset, registry.find(preset.detector, self.provider, threads))

        first, second = opinion(self.preset), opinion(self.second) if self.second else None
        for each, pin in zip(filter(None, (first, second)), self.pins, strict=False):
            found = each.detector
            if found.version != pin:
                raise DetectorError(
                    f"The detector {found.name!r} was replaced since this audit began. The rows so"
                    " far are kept: put its file back to continue, or choose another name to start"
                    f" over. (It was {pin}, now {found.version}.)"
                )
        return first, second

    def pinned(self) -> "Rules":
        """These rules held to the detectors as they are: one that is replaced ends the audit."""
        return replace(self, pins=tuple(each.detector.version for each in self.opinions() if each))

    def identity(self) -> dict[str, Any]:
        """What rows of one store have in common; the provider is none of it."""
        first, second = self.opinions()
        return {
            "preset": asdict(self.preset),
            "detector": identity_of(first.detector),
            "second opinion": (
                {"preset": asdict(second.preset), "detector": identity_of(second.detector)}
                if second
                else None
            ),
            "frames": self.frames,
            "megapixels": self.megapixels,
        }
