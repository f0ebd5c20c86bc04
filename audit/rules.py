"""What a long audit is told, as plain data: it goes to worker processes, and says whether a store may be gone on with."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from . import detectors
from .detector import Detector
from .files import FRAMES, MEGAPIXELS
from .presets import Preset


@dataclass(frozen=True)
class Rules:
    """The preset, a second opinion, own detectors (as in a settings file, below `folder`), and how files are read."""

    preset: Preset
    second: Preset | None = None
    entries: Mapping[str, Mapping] = field(default_factory=dict)
    folder: str = "."
    provider: str = "auto"
    frames: int = FRAMES
    megapixels: float = MEGAPIXELS

    def detectors(self, threads: int = 0) -> tuple[Detector, Detector | None]:
        """The detector, and the second opinion's if there is one."""
        detectors.register_entries(self.entries, Path(self.folder))
        first = detectors.find(self.preset.detector, self.provider, threads)
        return first, detectors.find(self.second.detector, self.provider, threads) if self.second else None

    def identity(self) -> dict:
        """What rows of one store have in common; the provider is none of it."""
        first, other = self.detectors()
        return {
            "preset": asdict(self.preset),
            "detector": [first.name, first.version],
            "second opinion": [asdict(self.second), other.name, other.version] if self.second else None,
            "frames": self.frames,
            "megapixels": self.megapixels,
        }
