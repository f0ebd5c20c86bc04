"""An exact detector of the toy's concept, plugged into the audit like any (docs/detectors.md)."""

from collections.abc import Sequence

import numpy as np

from ...audit.detectors.registry import register
from ...audit.presets import Preset, read_presets
from . import world

NAME, CLASS, THRESHOLD = "checker patch", "CHECKERED", 0.7
SIZE = 3
CONTRAST = 0.5  # of the patch's own, from which the score is the correlation alone


class CheckerPatch:
    """Normalised correlation of every 3x3 place with the black and white patch.

    It is taken over pixels and colours. A place scores its correlation, less where its contrast is
    under half the patch's; a picture's detection is its best place. Single stripes, edges and
    coloured patterns correlate little with it.
    """

    name, version, provider = NAME, "1", "cpu"
    classes, floor, batch = (CLASS,), 0.1, 256

    def detect(self, pictures: Sequence[np.ndarray]) -> list[list[dict]]:
        """The best place of each RGB picture, uint8 (H, W, 3), if it scores above the floor."""
        return [self._best(picture.astype(np.float32) / 127.5 - 1.0) for picture in pictures]

    def _best(self, picture: np.ndarray) -> list[dict]:
        # (H', W', 3, 3, 3)
        places = np.lib.stride_tricks.sliding_window_view(picture, (SIZE, SIZE), axis=(0, 1))
        patches = places.reshape(*places.shape[:2], -1)
        patches = patches - patches.mean(axis=2, keepdims=True)
        template = np.tile(world.checker(SIZE).numpy().reshape(-1), 3)
        template -= template.mean()
        inner = patches @ template
        correlation = inner / (np.linalg.norm(patches, axis=2) * np.linalg.norm(template) + 1e-6)
        scores = correlation * np.clip(inner / (template @ template) / CONTRAST, 0.0, 1.0)
        row, column = np.unravel_index(scores.argmax(), scores.shape)
        score = float(min(1.0, scores[row, column]))
        found = {
            "class": CLASS,
            "score": round(score, 6),
            "box": [int(column), int(row), SIZE, SIZE],
        }
        return [found] if score >= self.floor else []


def preset() -> Preset:
    """Make the detector known to the audit; the rule that counts what it finds."""
    register(NAME, CheckerPatch.classes, lambda provider, threads: CheckerPatch())
    rules = {
        "detector": NAME,
        "thresholds": {CLASS: THRESHOLD},
        "source": "lab/reemergence/README.md",
    }
    return read_presets({"toy": rules}, __file__)["toy"]
