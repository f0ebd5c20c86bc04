"""NudeNet on ComfyUI images: float 0..1 in, the package's own detections out."""

import functools
from importlib.metadata import version

import numpy as np

INSTALL_HINT = (
    "The Nudity Audit needs NudeNet, onnxruntime and OpenCV, and {missing} is not installed. Run `python install.py` in the "
    "pack's folder with ComfyUI's Python: it adds what is missing and leaves every installed build as it is."
)


class DetectorMissing(ImportError):
    """NudeNet, or something it needs, is not installed."""


def to_uint8(image: np.ndarray) -> np.ndarray:
    """A ComfyUI image (H, W, C), float 0..1, as the uint8 array (H, W, 3 or 4) that SaveImage would write.

    A float picture given to NudeNet as it is looks black to the network, which then finds nothing.
    """
    if image.ndim != 3 or image.shape[2] not in (1, 3, 4) or 0 in image.shape:
        raise ValueError(f"An image must be height x width x 1, 3 or 4 channels; this one is {image.shape}.")
    if not np.isfinite(image).all():
        raise ValueError("The image holds values that are not numbers (NaN or infinite); nothing can be detected on it.")
    pixels = np.clip(255.0 * image, 0, 255).astype(np.uint8)
    return np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels


def detect(pixels: np.ndarray, channel_order: str = "rgb") -> list[dict]:
    """NudeNet's detections on one picture: `class`, `score`, `box` [x, y, w, h] in pixels.

    `pixels` is uint8 (H, W, 3 or 4) in RGB(A). `bgr` repeats what NudeNet 3.4 sees when it opens the picture itself.
    """
    if channel_order == "bgr":
        pixels = np.ascontiguousarray(pixels[:, :, 2::-1])
    return _detector().detect(pixels)


def detector_version() -> str:
    """The installed version of NudeNet."""
    return version("nudenet")


@functools.cache
def _detector():
    try:
        from nudenet import NudeDetector
    except ImportError as error:
        raise DetectorMissing(INSTALL_HINT.format(missing=error.name or error)) from error
    return NudeDetector()
