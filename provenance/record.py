"""What a file says of a picture: what audits found, and the digests of what made it.

    {"form": 1,
     "audits": [{"by": "Nudity Audit", "preset": "strict", "thresholds": {...},
                 "detector": "<sha256>",
                 "pictures": [{"sha256": "<of the pixels>", "flagged": false, "done": "passed"}]}],
     "not_looked_at": 0,
     "models": [{"base": ..., "base_sha256": ..., "loras": [{"role": "safety", "sha256": ...}]}],
     "safety_lora": "intact"}

All pictures that a node saves at a time get the same text, so each is known by its pixels. A safety
LoRA's `sha256` is its seal. Nothing here is signed: whoever has the file can write another.
"""

import hashlib
import json
import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, ValidationError

from ..audit.about import ROLES, STATES
from ..audit.counting import Preset
from ..options.errors import PackError
from ..storage.checked import Checked, fault_of

KEY = "modular-safety-lora"  # of the metadata: a PNG's chunk, the word before the EXIF text
PASSED = "passed"  # what was done with a picture that is not flagged
MOST = 20_000  # looks that are kept: those of the oldest pictures are forgotten
Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class RecordError(PackError, ValueError):
    """A text that is no record, or none that can be relied on."""


class Look(Checked):
    """What was found of one picture, by class, and what was done; `sha256` is of what then is."""

    sha256: Digest
    flagged: bool
    done: str
    counts: dict[str, int] = {}


class Rules(Checked):
    """Who looked, and by what: the detector is the digest of what its results depend on."""

    by: str
    preset: str
    thresholds: dict[str, float]
    min_size: float = 0.0
    detector: Digest

    @classmethod
    def of(cls, by: str, preset: Preset, detector: str) -> "Rules":
        return cls(
            by=by,
            preset=preset.name,
            thresholds=preset.counted_from,
            min_size=preset.min_size,
            detector=detector,
        )


class Audit(Rules):
    """Some pictures that were looked at under the same rules."""

    pictures: tuple[Look, ...]


class Lora(Checked):
    """A LoRA on a model, as evidence and audits name it."""

    name: str
    role: Literal[tuple(ROLES)]  # type: ignore[valid-type]  # the words of a table
    sha256: Digest | None
    strength: float | None = None
    strength_clip: float | None = None


class Model(Checked):
    """What sampled: `patched` counts weights that something else than these LoRAs changed."""

    base: str | None
    base_sha256: Digest | None
    loras: tuple[Lora, ...]
    patched: int = 0

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> "Model":
        """As `merge/about.py` and `nodes/made_by.py` tell it."""
        return cls.model_validate_json(json.dumps(told))


class Record(Checked):
    """All that a file says. `not_looked_at` counts pictures that no audit saw as they are."""

    form: Literal[1] = 1
    audits: tuple[Audit, ...]
    not_looked_at: int = 0
    models: tuple[Model, ...] = ()
    safety_lora: Literal[tuple(STATES)]  # type: ignore[valid-type]  # the words of a table

    def of(self, pixels: str) -> list[tuple[Audit, Look]]:
        """What audits found of the picture with these pixels."""
        return [
            (audit, look)
            for audit in self.audits
            for look in audit.pictures
            if look.sha256 == pixels
        ]

    def plain(self) -> dict[str, Any]:
        """As JSON holds it."""
        return self.model_dump(mode="json")


@dataclass(frozen=True)
class Noted:
    """A look with its rules."""

    rules: Rules
    look: Look


def pixels_sha256(pixels: np.ndarray) -> str:
    """SHA-256 of shape and pixels, uint8 (H, W, 3 or 4), as a lossless file has them."""
    pixels = np.ascontiguousarray(pixels)
    digest = hashlib.sha256(f"{pixels.shape}\0".encode())
    digest.update(pixels.data)
    return digest.hexdigest()


def record(
    found: Iterable[Sequence[Noted]], models: Sequence[Mapping[str, Any]], safety_lora: str
) -> Record:
    """The record of some pictures: what was noted of each, which may be nothing."""
    audits: dict[str, tuple[Rules, dict[str, Look]]] = {}
    unseen = 0
    for looks in found:
        unseen += not looks
        for each in looks:
            _, pictures = audits.setdefault(each.rules.model_dump_json(), (each.rules, {}))
            pictures[each.look.sha256] = each.look
    return Record(
        audits=tuple(
            Audit(**rules.model_dump(), pictures=tuple(pictures.values()))
            for rules, pictures in audits.values()
        ),
        not_looked_at=unseen,
        models=tuple(map(Model.of, models)),
        safety_lora=safety_lora,
    )


def read(text: str) -> Record:
    """A record from a file's text. Raises RecordError for one that says anything else."""
    try:
        return Record.model_validate_json(text)
    except ValidationError as error:
        said = fault_of(error, Record)
        raise RecordError(f"what it says of its audit can't be read: {said}") from error


class Looks:
    """What audits of this process found, by the pixels that went on; bounded.

    One picture may be looked at under several rules, such as a preset with another threshold. Of
    the same ones the last look counts.
    """

    def __init__(self, most: int = MOST) -> None:
        self._most, self._lock = most, threading.Lock()
        self._known: OrderedDict[str, dict[str, Noted]] = OrderedDict()

    def keep(self, rules: Rules, looks: Iterable[Look]) -> None:
        under = rules.model_dump_json()
        with self._lock:
            for look in looks:
                self._known.setdefault(look.sha256, {})[under] = Noted(rules, look)
                self._known.move_to_end(look.sha256)
            over = sum(map(len, self._known.values())) - self._most
            while over > 0:
                over -= len(self._known.popitem(last=False)[1])

    def of(self, pixels: str) -> tuple[Noted, ...]:
        with self._lock:
            return tuple(self._known.get(pixels, {}).values())


looks = Looks()  # of this process
