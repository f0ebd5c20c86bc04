"""Pictures with what audits said of them, as files have it."""

import json

import numpy as np
from modular_safety_lora.provenance.record import (
    KEY,
    Look,
    Noted,
    Record,
    Rules,
    pixels_sha256,
    record,
)
from modular_safety_lora.provenance.saving import Saving, encoded

PIXELS = np.random.default_rng(7).integers(0, 255, (24, 32, 3), np.uint8)
OTHERS = PIXELS[::-1].copy()
RULES = Rules(by="Nudity Audit", preset="strict", thresholds={"A": 0.5}, detector="d" * 64)
SAFETY, TASK, BASE = "5" * 64, "7" * 64, "b" * 64
MODELS = [
    {
        "base": "base.safetensors",
        "base_sha256": BASE,
        "loras": [
            {"name": "safe", "role": "safety", "sha256": SAFETY, "strength": 1.0},
            {"name": "style", "role": "task", "sha256": TASK, "strength": 0.8},
        ],
    }
]
FILES = {
    "png": Saving("png"),
    "webp": Saving("webp", 100),
    "lossy.webp": Saving("webp", 90),
    "jpeg": Saving("jpeg", 90),
}


def looked(pixels=PIXELS, flagged=False, **more) -> Noted:
    done = "blur" if flagged else "passed"
    counts = {"A": 2} if flagged else {}
    digest = pixels_sha256(pixels)
    look = Look(sha256=digest, flagged=flagged, done=done, counts=counts)
    return Noted(RULES.model_copy(update=more), look)


def told(*looks: tuple[Noted, ...]) -> Record:
    return record(looks or [(looked(),)], MODELS, "intact")


def written(folder, name: str, found: Record | str, pixels=PIXELS) -> str:
    text = found if isinstance(found, str) else json.dumps(found.plain())
    texts = {"prompt": "{}", "workflow": "{}", KEY: text}
    path = folder / f"a.{name}"
    path.write_bytes(encoded(pixels, FILES[name], texts))
    return path
