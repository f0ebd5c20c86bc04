"""What a long audit is told, as plain data.

It goes to worker processes, and says whether a store may be gone on with.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from .detectors import registry
from .detectors.interface import identity_of
from .detectors.runtime import DetectorError
from .pictures import FRAMES, MEGAPIXELS
from .presets import Preset
from .report import Opinion


@dataclass(frozen=True)
class Rules:
    """The preset, a second opinion, own detectors, and how files are read.

    Own detectors are as in a settings file, below `folder`.
    """

    preset: Preset
    second: Preset | None = None
    entries: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    folder: str = "."
    provider: str = "auto"
    frames: int = FRAMES
    megapixels: float = MEGAPIXELS
    pins: tuple[str, ...] = ()  # versions of the detectors that they are held to

    def __post_init__(self) -> None:
        if self.frames < 1:
            raise ValueError(f"{self.frames} frames of an animation show nothing; 1 is the least.")
        if not 0.0 < self.megapixels < math.inf:
            raise ValueError(
                f"Pictures of {self.megapixels} megapixels can't be a limit; it must be above 0."
            )

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
                    f"The detector {found.name!r} is not the one that this audit began with ({pin};"
                    f" now {found.version}). Its rows so far are kept; put the file back to go on,"
                    " or give another name to begin anew."
                )
        return first, second

    def pinned(self) -> "Rules":
        """These rules held to the detectors as they are now, in every process.

        A file that is replaced ends the audit.
        """
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
