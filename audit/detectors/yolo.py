"""Detectors of the Ultralytics family as ONNX, in batches: NudeNet, and what users bring."""

import os
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import numpy as np

from ...options.words import amount
from .interface import BatchSize, DetectorEntry, Fraction, Size, stamped, to_uint8
from .runtime import DetectorError, OnnxNetwork, opencv

CANDIDATE = 0.2  # NudeNet's: anchors below take no part in suppression
HANDS = min(8, os.cpu_count() or 1)  # threads that scale pictures
# pixels: a larger picture is reduced first, so that its padded square takes 200 MB at most
LONGEST = 8192

_pool = ThreadPoolExecutor(HANDS, "audit")  # starts no thread before its first task


class YoloEntry(DetectorEntry):
    """Boxes that overlap a better one by more than `overlap` are dropped, across classes."""

    size: Size = 320
    floor: Fraction = 0.25
    overlap: Fraction = 0.45
    batch: BatchSize = 16


class Yolo:
    """Boxes and classes from a network (B, 3, size, size) -> (B, 4 + classes, anchors).

    The network gives centre boxes in input pixels. Pictures are padded right and bottom to a
    square, as NudeNet does it; suppression looks across classes.
    """

    kind, described_by = "yolo", YoloEntry
    floats = True

    def __init__(
        self, name: str, version: str, entry: YoloEntry, provider: str = "auto", threads: int = 0
    ):
        self.name, self.classes = name, entry.classes
        self.size, self.floor = entry.size, entry.floor
        self.overlap, self.batch = entry.overlap, entry.batch
        file = Path(entry.file)
        probe = np.random.default_rng(0).random((1, 3, self.size, self.size), dtype=np.float32)
        self.network = OnnxNetwork(f"{name} {version}", file, probe, provider, threads)
        self.provider, self._kept = self.network.provider, threading.local()
        sha256 = self.network.content.sha256
        self.identity = {"kind": self.kind, "sha256": sha256} | entry.identity()
        self.version = stamped(version, self.identity)
        self._hands = threads or HANDS
        shape = self.network.run(probe)[0].shape
        if len(shape) != 3 or shape[1] != 4 + len(self.classes):
            raise DetectorError(
                f"{file}: its output has the shape {shape}; with"
                f" {amount(len(self.classes), 'class', 'classes')} it must be (batch,"
                f" {4 + len(self.classes)}, anchors). Check `classes`, and export"
                " without built-in suppression."
            )

    def detect(self, pictures: Sequence[np.ndarray]) -> list[list[dict[str, Any]]]:
        """Detections of pictures (H, W, 3), uint8 or float: `class`, `score`, `box` in pixels.

        A box is [x, y, w, h] in the picture's own pixels.
        """
        blob = self._blob(len(pictures))
        groups = min(self._hands, len(pictures))
        others = [
            _pool.submit(_scale, pictures[start::groups], blob[start::groups])
            for start in range(1, groups)
        ]
        try:
            _scale(pictures[::groups], blob[::groups])
        finally:
            wait(others)  # none still writes into the blob of the next
        for other in others:
            other.result()
        outputs = self.network.run(blob)[0]
        return [
            self._decode(output, *picture.shape[:2])
            for output, picture in zip(outputs, pictures, strict=True)
        ]

    def _blob(self, count: int) -> np.ndarray:
        """The input of `count` pictures, one per thread and reused: allocating it is slow."""
        if len(getattr(self._kept, "blob", ())) < count:
            self._kept.blob = np.empty((count, 3, self.size, self.size), np.float32)
        return self._kept.blob[:count]

    def _decode(self, output: np.ndarray, height: int, width: int) -> list[dict[str, Any]]:
        """Detections over CANDIDATE in one picture's output (4 + classes, anchors)."""
        best = output[4:].max(axis=0)
        candidates = np.flatnonzero(best >= CANDIDATE)
        if not len(candidates):
            return []
        x, y, w, h = output[:4, candidates]
        side = max(height, width)
        # In NudeNet's order and in float32, so that the whole pixels are its own too.
        x, y = (x - w / 2) * side / self.size, (y - h / 2) * side / self.size
        w, h = w * side / self.size, h * side / self.size
        x, y = np.clip(x, 0, width), np.clip(y, 0, height)
        boxes = np.stack([x, y, np.minimum(w, width - x), np.minimum(h, height - y)], axis=1)
        kept = opencv().dnn.NMSBoxes(
            boxes.tolist(), best[candidates].tolist(), self.floor, self.overlap
        )
        labels = output[4:, candidates].argmax(axis=0)
        return [
            {
                "class": self.classes[labels[index]],
                "score": float(best[candidates[index]]),
                "box": [int(value) for value in boxes[index]],
            }
            for index in np.asarray(kept, dtype=int).reshape(-1)
        ]


def _scale(pictures: Sequence[np.ndarray], places: np.ndarray) -> None:
    for picture, place in zip(pictures, places, strict=True):
        letterbox(picture, place)


def letterbox(picture: np.ndarray, place: np.ndarray) -> None:
    """Write a picture, uint8 (H, W, 3) or a float one, as the network sees it: (3, size, size).

    The result is float32 0..1, padded right and bottom to a square.
    """
    cv2 = opencv()
    # here, while it is in the processor's cache
    picture = picture if picture.dtype == np.uint8 else to_uint8(picture)
    height, width = picture.shape[:2]
    side = max(height, width)
    if side > LONGEST:
        smaller = max(1, round(width * LONGEST / side)), max(1, round(height * LONGEST / side))
        picture = cv2.resize(picture, smaller, interpolation=cv2.INTER_AREA)
        height, width = picture.shape[:2]
        side = max(height, width)
    if height != width:
        picture = cv2.copyMakeBorder(
            picture, 0, side - height, 0, side - width, cv2.BORDER_CONSTANT
        )
    resized = cv2.resize(
        np.ascontiguousarray(picture), place.shape[1:], interpolation=cv2.INTER_LINEAR
    )
    # twice as fast as one strided multiply
    for channel, values in zip(cv2.split(resized), place, strict=True):
        np.multiply(channel, np.float32(1 / 255.0), out=values)


KIND = Yolo
