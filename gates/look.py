"""Looking: pictures to findings, each content once under the same rules."""

import hashlib
import json
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from itertools import islice
from typing import Any

import numpy as np

from ..audit.columns import counted
from ..audit.detectors.interface import Detector, identity_of, to_uint8
from ..audit.detectors.yolo import HANDS
from ..audit.opinion import Opinion
from ..audit.pictures import Unreadable
from ..options.errors import PackError
from ..provenance.record import pixels_sha256
from . import verdicts
from .files import pictures_in
from .seen import Finding, Seen

# what looking raises: what can't be judged, a detector that is not there, a mistake in settings
FAULTS = (PackError, ValueError, ImportError)
CHUNK = 16  # pictures that are held as uint8 at a time
_pool = ThreadPoolExecutor(HANDS, "gates")  # starts no thread before its first task


class Inspector:
    """Looks at pictures by the operator's rules. May be used from any thread.

    `opinion` gives preset and detector, and may raise: then nothing is found, and nothing passes.
    """

    def __init__(self, opinion: Callable[[], Opinion], seen: Seen):
        self._opinion, self.seen = opinion, seen
        self._lock = threading.Lock()
        # the detectors that `rules` asked for, and what it made of them
        self._known: tuple[tuple[Detector, ...], str, str] | None = None

    def rules(self) -> tuple[Opinion, str, str]:
        """The preset with its detector, and the digests of the detector and of both."""
        opinion = self._opinion()
        with self._lock:
            held = opinion.detectors
            if self._known is None or [*map(id, self._known[0])] != [*map(id, held)]:
                identities = [identity_of(each) for each in held]
                both = {"preset": asdict(opinion.preset), "detectors": identities}
                self._known = held, opinion.sha256, _of_json(both)
            return opinion, *self._known[1:]

    def detector(self) -> str:
        """The detector's digest; empty for one that can't be loaded."""
        try:
            return self.rules()[1]
        except FAULTS:
            return ""

    def pictures(self, images: Iterable[np.ndarray]) -> Iterator[Finding]:
        """What is found of each picture: ComfyUI's floats or uint8, (H, W, 1, 3 or 4).

        Raises ValueError for one that is no picture, holds NaN or can't be judged, and what
        `opinion` raises.
        """
        opinion, _, rules = self.rules()
        left = iter(images)
        while chunk := list(islice(left, CHUNK)):
            yield from self._looked(opinion, rules, chunk)

    def _looked(self, opinion: Opinion, rules: str, chunk: list[np.ndarray]) -> list[Finding]:
        pixels, digests = zip(*_pool.map(_prepared, chunk), strict=True)
        found = {digest: self.seen.get(rules, digest) for digest in digests}
        new = {
            digest: picture
            for digest, picture in zip(digests, pixels, strict=True)
            if found[digest] is None
        }
        results = opinion.of(new.values())
        looked = {
            digest: Finding(digest, _counts(result))
            for digest, result in zip(new, results, strict=True)
        }
        self.seen.put(rules, *looked.values())
        return [found[digest] or looked[digest] for digest in digests]

    def remember(self, images: Iterable[np.ndarray]) -> list[str]:
        """Pictures that stand in the place of others need no look; their digests."""
        _, _, rules = self.rules()
        digests = [_prepared(image)[1] for image in images]
        self.seen.put(rules, *map(Finding, digests))
        return digests

    def file(self, content: bytes) -> Finding | None:
        """What is found of all pictures in a file's content; None where it holds none.

        It is `new` until `keep` has it, which is for whoever has told it: what nobody was told of,
        for a kill or a log that can't be written, is found again. Raises Unreadable, and what
        `pictures` raises.
        """
        pictures = pictures_in(content)
        if pictures is None:
            return None
        rules = self.rules_of_files()
        digest = hashlib.sha256(content).hexdigest()
        if known := self.seen.get(rules, digest):
            return known
        counts: Counter[str] = Counter()
        looks = 0
        for finding in self.pictures(pictures):
            counts.update(finding.counts)
            looks += 1
        if not looks:
            raise Unreadable("it holds no picture that can be read")
        return Finding(digest, dict(counts))

    def keep(self, found: Finding) -> None:
        """A file's finding need not be found again. Raises what `opinion` raises."""
        if found.new and not found.reason:
            self.seen.put(self.rules_of_files(), found)

    def rules_of_files(self) -> str:
        """The rules; what was told to nobody is new to the first who listens.

        Raises what `opinion` raises.
        """
        _, _, rules = self.rules()
        return f"{rules} told" if verdicts.listeners else rules


def _prepared(image: np.ndarray) -> tuple[np.ndarray, str]:
    """A picture as a file would have it, uint8, and its digest."""
    pixels = image if image.dtype == np.uint8 else to_uint8(image)
    pixels = np.ascontiguousarray(pixels)
    return pixels, pixels_sha256(pixels)


def _counts(result: dict[str, Any]) -> dict[str, int]:
    return dict(Counter(each["class"] for each in counted(result)))


def _of_json(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
