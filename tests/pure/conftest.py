"""The pure tier needs no ComfyUI; its helpers are importable from here on."""

import sys
from pathlib import Path

import numpy as np
import pytest
from modular_safety_lora.audit.detectors import registry
from nudenet import NudeDetector
from PIL import Image
from skimage import data

sys.path.insert(0, str(Path(__file__).parent))
pytest.register_assert_rewrite("onnx_files", "picture_folders")  # they assert as tests do


@pytest.fixture(scope="module")
def oracle() -> NudeDetector:
    return NudeDetector()


@pytest.fixture(scope="module")
def pictures() -> list[np.ndarray]:
    """Sixty pictures of many sizes, most with something to find."""
    face, found = Image.fromarray(data.astronaut()), []
    for number in range(60):
        width, height = 96 + 17 * (number % 13), 96 + 23 * (number % 11)
        turned = face.rotate(5 * (number % 7) - 15).resize((width, height))
        found.append(np.roll(np.array(turned), 3 * number, axis=1))
    return found


@pytest.fixture
def known():
    """Own detectors, forgotten afterwards."""
    before = dict(registry._known)
    yield
    registry._known.clear()
    registry._known.update(before)
    registry._made.clear()
