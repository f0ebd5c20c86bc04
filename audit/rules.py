"""What a long audit is told, as plain data.

It goes to worker processes, and says whether a store may be gone on with.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from ..options.table import check, option
from .detectors import registry
from .detectors.interface import Detector, identity_of
from .detectors.runtime import SHORT, DetectorError
from .pictures import FRAMES, MEGAPIXELS
from .presets import PRESETS, Preset, choose

NO_OPINION = "none"
OWN = "or one of your own"


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
        "One score for every counted class. 0 keeps the preset's own.",
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
        "A second preset, best with another detector from the settings: how far the two agree is"
        " reported. It never changes what is flagged.",
        choices=(NO_OPINION, *PRESETS),
        other=OWN,
    )

    def __post_init__(self):
        check(self)

    def among(self, presets: Mapping[str, Preset]) -> tuple[Preset, Preset | None]:
        """The preset with its changes, and the second opinion's, of those that there are.

        Raises PresetError, DetectorError.
        """

        def named(name: str, *changes) -> Preset:
            known = registry.classes_of(presets[name].detector) if name in presets else ()
            return choose(name, *changes, presets=presets, known=known)

        second = None if self.second_opinion == NO_OPINION else named(self.second_opinion)
        return named(self.preset, self.threshold, self.classes), second


@dataclass(frozen=True)
class Rules:
    """The preset, a second opinion, own detectors, and how files are read.

    Own detectors are as in a settings file, below `folder`.
    """

    preset: Preset
    second: Preset | None = None
    entries: Mapping[str, Mapping] = field(default_factory=dict)
    folder: str = "."
    provider: str = option("auto", "What onnxruntime computes on.", choices=("auto", *SHORT))
    frames: int = option(FRAMES, "Frames of an animation that are looked at, evenly spread.", low=1)
    megapixels: float = option(MEGAPIXELS, "Larger pictures are listed as unreadable.", low=0.001)
    pins: tuple[str, ...] = ()  # versions of the detectors that they are held to

    def __post_init__(self):
        check(self)

    def detectors(self, threads: int = 0) -> tuple[Detector, Detector | None]:
        """The detector, and the second opinion's if there is one.

        Raises DetectorError for one that is not pinned.
        """
        registry.register_entries(self.entries, Path(self.folder))
        first = registry.find(self.preset.detector, self.provider, threads)
        other = registry.find(self.second.detector, self.provider, threads) if self.second else None
        for found, pin in zip((first, other), self.pins, strict=False):
            if found.version != pin:
                raise DetectorError(
                    f"The detector {found.name!r} is not the one that this audit began with ({pin};"
                    f" now {found.version}). Its rows so far are kept; put the file back to go on,"
                    " or give another name to begin anew."
                )
        return first, other

    def pinned(self) -> "Rules":
        """These rules held to the detectors as they are now, in every process.

        A file that is replaced ends the audit.
        """
        return replace(self, pins=tuple(each.version for each in self.detectors() if each))

    def identity(self) -> dict:
        """What rows of one store have in common; the provider is none of it."""
        first, other = self.detectors()
        return {
            "preset": asdict(self.preset),
            "detector": identity_of(first),
            "second opinion": (
                {"preset": asdict(self.second), "detector": identity_of(other)}
                if self.second
                else None
            ),
            "frames": self.frames,
            "megapixels": self.megapixels,
        }
