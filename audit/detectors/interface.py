"""The interface of detectors: pictures in, detections out."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Protocol

import numpy as np
from pydantic import AfterValidator, Field

from ...storage.checked import Checked


def _distinct(names: tuple[str, ...]) -> tuple[str, ...]:
    twice = [name for name in names if names.count(name) > 1 or not name]
    if twice:
        raise ValueError(f"`classes` names {twice[0]!r} twice, or not at all")
    return names


class DetectorEntry(Checked):
    """A detector as a settings file describes it; each kind adds what it can be told.

    With `package`, the file lies in the folder of that Python package.
    """

    file: str
    classes: Annotated[tuple[str, ...], Field(min_length=1), AfterValidator(_distinct)]
    package: Annotated[str, Field(pattern=r"^(|[A-Za-z_]\w*)$")] = ""

    def identity(self) -> dict[str, Any]:
        """What the results depend on, as plain data: all but where the file lies, and its batch."""
        return self.model_dump(mode="json", exclude={"file", "package", "batch"})


Size = Annotated[int, Field(ge=16, le=4096)]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
BatchSize = Annotated[int, Field(ge=1, le=1024)]


class Detector(Protocol):
    """What the audit asks of a detector; `docs/detectors.md` shows one in ten lines.

    `classes` are the names it may give, `floor` the score below which it reports nothing, `batch`
    how many pictures it wants at a time, `provider` what it runs on. One that has `floats = True`
    is given ComfyUI's floats as they are, and does `to_uint8` in its own threads. A detection is
    `{"class": str, "score": float in 0..1, "box": [x, y, w, h] in whole pixels}`; a detector
    without boxes gives the whole picture's. `version` must change with the results; one that has an
    `identity`, a mapping of plain values, says there what they depend on.
    """

    name: str
    version: str
    classes: tuple[str, ...]
    floor: float
    batch: int
    provider: str

    def detect(self, pictures: Sequence[np.ndarray]) -> list[list[dict[str, Any]]]:
        """The detections of each RGB picture, uint8 (H, W, 3), best first."""


class Kind(Detector, Protocol):
    """A detector that a settings file can describe: by `kind`, and an entry as `described_by`."""

    kind: ClassVar[str]
    described_by: ClassVar[type[DetectorEntry]]

    def __init__(
        self, name: str, version: str, entry: Any, provider: str = "auto", threads: int = 0
    ) -> None:
        """Load what an entry, one of `described_by`, describes."""


def identity_of(detector: Detector) -> dict[str, Any]:
    """What a detector's results depend on, as plain data; a store of rows is for one identity."""
    said = {
        "version": detector.version,
        "classes": list(detector.classes),
        "floor": float(detector.floor),
    }
    return {"name": detector.name, **getattr(detector, "identity", said)}


def stamped(version: str, identity: Mapping[str, Any]) -> str:
    """A version with the first 12 digits of an identity's SHA-256: it tells two of a name apart."""
    return (
        f"{version}"
        f" {hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:12]}"
    )


def finite(values: np.ndarray) -> bool:
    """Whether no value is NaN or infinite."""
    # the squares' sum is finite only if all are, and takes half the time; it can also overflow
    return bool(np.isfinite(np.vdot(values, values)) or np.isfinite(values).all())


def to_uint8(image: np.ndarray) -> np.ndarray:
    """A ComfyUI image (H, W, C), float 0..1, as SaveImage writes it: uint8 (H, W, 3 or 4).

    A float picture given to a detector as it is looks black to the network, which then finds
    nothing.
    """
    if image.ndim != 3 or image.shape[2] not in (1, 3, 4) or 0 in image.shape:
        raise ValueError(
            f"An image must be height x width x 1, 3 or 4 channels; this one is {image.shape}."
        )
    if not finite(image):
        raise ValueError(
            "The image holds values that are not numbers (NaN or infinite);"
            " nothing can be detected on it."
        )
    pixels = 255.0 * image
    # in place: new memory takes longer than the sums
    pixels = np.clip(pixels, 0, 255, out=pixels).astype(np.uint8)
    return np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels
