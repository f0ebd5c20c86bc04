"""A line of the evidence log: JSON, with the SHA-256 of the line before it.

    {"line": 7, "before": "<sha256 of line 6>", "time": "2026-11-30T11:20:01.123Z",
     "kind": "sampled", "facts": {...}}

The digest is over the bytes of the line without its end. Whoever changes, removes or moves a line
has to write every later one again.
"""

import datetime
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..options.words import amount
from ..storage.names import valid

START = "0" * 64  # stands before the first line
LONGEST = 32 * 2**10  # bytes of a line; what would be longer is kept as its digest
TEXT, ITEMS = 2000, 200  # letters of a text, entries of a list: what is more is cut, and it says so
KEYS = ("line", "before", "time", "kind", "facts")


@dataclass(frozen=True)
class Line:
    """A line as it was read or written; `digest` is what the next one holds as `before`."""

    number: int
    before: str
    time: str
    kind: str
    facts: Mapping[str, Any]
    raw: bytes

    @property
    def digest(self) -> str:
        return digest_of(self.raw)


def digest_of(raw: bytes) -> str:
    return hashlib.sha256(raw).hexdigest()


def new_line(number: int, before: str, kind: str, facts: Mapping[str, Any]) -> Line:
    """The next line, at this time."""
    time = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="milliseconds")
    time = time.replace("+00:00", "Z")
    kept = plain(facts)
    raw = _written(number, before, time, kind, kept)
    if len(raw) > LONGEST:
        kept = {"too_long": len(raw), "sha256": digest_of(raw)}
        raw = _written(number, before, time, kind, kept)
    return Line(number, before, time, kind, kept, raw)


def parsed(raw: bytes) -> Line | None:
    """The line that these bytes are; None for what is no whole line."""
    try:
        found = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict) or tuple(found) != KEYS:
        return None
    number, before, time, kind, facts = found.values()
    texts = all(isinstance(each, str) for each in (before, time, kind))
    if not texts or type(number) is not int or not isinstance(facts, dict):
        return None
    return Line(number, before, time, kind, facts, raw)


def days_since(time: str) -> float:
    """How many days ago a line's time was; none for what is no time."""
    try:
        then = datetime.datetime.fromisoformat(time.replace("Z", "+00:00"))  # 3.10 reads no Z
        passed = datetime.datetime.now(datetime.timezone.utc) - then
    except (ValueError, TypeError):
        return 0.0
    return passed.total_seconds() / 86400


def plain(value: Any) -> Any:
    """A value as JSON holds it: texts and lists of bounded length, and no number that is none."""
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, Mapping):
        kept = {_cut(str(key)): plain(each) for key, each in list(value.items())[:ITEMS]}
        return kept | ({"...": len(value) - ITEMS} if len(value) > ITEMS else {})
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        more = [f"... and {len(value) - ITEMS} more"] if len(value) > ITEMS else []
        return [*map(plain, value[:ITEMS]), *more]
    return _cut(str(value))


def _cut(text: str) -> str:
    text = valid(text)
    return text if len(text) <= TEXT else f"{text[:TEXT]}... ({amount(len(text), 'letter')})"


def _written(*values: Any) -> bytes:
    named = dict(zip(KEYS, values, strict=True))
    return json.dumps(named, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
