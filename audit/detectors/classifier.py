"""Classifiers of whole pictures as ONNX: a class over the floor is a box over the picture."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from PIL import Image
from pydantic import AfterValidator, Field

from ...options.words import amount
from .interface import BatchSize, DetectorEntry, Fraction, Size, stamped
from .runtime import DetectorError, OnnxNetwork

Three = Annotated[tuple[float, ...], Field(min_length=3, max_length=3)]


def _divides(values: tuple[float, ...]) -> tuple[float, ...]:
    if 0.0 in values:
        raise ValueError("`std` must not be 0")
    return values


class ClassifierEntry(DetectorEntry):
    """Values of 0..1 are normalised with `mean` and `std`; `scores` turns outputs into 0..1.

    `fit` says how a picture becomes a square of `size` pixels: squashed, its middle cropped, or
    padded around; a `margin` of so many pixels is cut off it. With the scores `none` the outputs
    are scores.
    """

    size: Size = 224
    fit: Literal["squash", "crop", "pad"] = "squash"
    margin: Annotated[int, Field(ge=0, le=1024)] = 0
    mean: Three = (0.0, 0.0, 0.0)
    std: Annotated[Three, AfterValidator(_divides)] = (1.0, 1.0, 1.0)
    layout: Literal["nchw", "nhwc"] = "nchw"
    channels: Literal["rgb", "bgr"] = "rgb"
    scores: Literal["softmax", "sigmoid", "none"] = "softmax"
    floor: Fraction = 0.05
    batch: BatchSize = 4

    def identity(self) -> dict[str, Any]:
        found = super().identity()
        return found if self.margin else {key: found[key] for key in found if key != "margin"}


class Classifier:
    """Scores of classes from a network of pictures; the first output must be (B, classes)."""

    kind, described_by = "classifier", ClassifierEntry

    def __init__(
        self,
        name: str,
        version: str,
        entry: ClassifierEntry,
        provider: str = "auto",
        threads: int = 0,
    ):
        self.name, self.classes, self.entry = name, entry.classes, entry
        self.size, self.floor, self.batch = entry.size, entry.floor, entry.batch
        self.mean, self.std = np.asarray(entry.mean, np.float32), np.asarray(entry.std, np.float32)
        file, side = Path(entry.file), self.size
        probe = self._blob(
            [np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)]
        )
        self.network = OnnxNetwork(f"{name} {version}", file, probe, provider, threads)
        self.provider = self.network.provider
        sha256 = self.network.content.sha256
        self.identity = {"kind": self.kind, "sha256": sha256} | entry.identity()
        self.version = stamped(version, self.identity)
        shape = self.network.run(probe)[0].shape
        if shape != (1, len(self.classes)):
            raise DetectorError(
                f"{file}: its first output has the shape {shape} for one picture, but `classes` has"
                f" {amount(len(self.classes), 'name')}."
            )

    def detect(self, pictures: Sequence[np.ndarray]) -> list[list[dict[str, Any]]]:
        """Detections of RGB pictures, uint8 (H, W, 3) each: the box is the whole picture."""
        found = []
        for picture, scores in zip(
            pictures, self._activated(self.network.run(self._blob(pictures))[0]), strict=True
        ):
            box = [0, 0, picture.shape[1], picture.shape[0]]
            ordered = sorted(
                zip(self.classes, scores.tolist(), strict=True), key=lambda each: -each[1]
            )
            found.append(
                [
                    {"class": name, "score": score, "box": box}
                    for name, score in ordered
                    if score >= self.floor
                ]
            )
        return found

    def _activated(self, outputs: np.ndarray) -> np.ndarray:
        if self.entry.scores == "softmax":
            raised = np.exp(outputs - outputs.max(axis=1, keepdims=True))
            outputs = raised / raised.sum(axis=1, keepdims=True)
        elif self.entry.scores == "sigmoid":
            outputs = 1 / (1 + np.exp(-outputs))
        if not (np.isfinite(outputs).all() and outputs.min() >= 0 and outputs.max() <= 1 + 1e-6):
            raise DetectorError(
                f"{self.name} gave scores from {outputs.min():.3g} to {outputs.max():.3g}; they"
                " must lie in 0..1."
                " Set `scores` to softmax or sigmoid if the network ends before it."
            )
        return outputs

    def _blob(self, pictures: Sequence[np.ndarray]) -> np.ndarray:
        values = (
            np.stack([np.asarray(self._square(picture), np.float32) for picture in pictures])
            / 255.0
        )  # BHWC
        values = (values - self.mean) / self.std
        values = values[..., ::-1] if self.entry.channels == "bgr" else values
        return np.ascontiguousarray(
            values if self.entry.layout == "nhwc" else values.transpose(0, 3, 1, 2)
        )

    def _square(self, picture: np.ndarray) -> Image.Image:
        image = Image.fromarray(picture)
        if self.entry.fit == "crop":
            side = min(image.size)
            left, top = (image.width - side) // 2, (image.height - side) // 2
            image = image.crop((left, top, left + side, top + side))
        elif self.entry.fit == "pad":
            side = max(image.size)
            around = Image.new("RGB", (side, side))
            around.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
            image = around
        margin = self.entry.margin
        side = self.size + 2 * margin
        image = image.resize((side, side), Image.Resampling.BICUBIC)
        return image.crop((margin, margin, side - margin, side - margin)) if margin else image


KIND = Classifier
