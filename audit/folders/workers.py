"""Audits of files: one function looks at some; processes, or Ray, call it on millions."""

import logging
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ...storage.names import fitting, read_back, valid
from ...storage.whole import write_picture
from ..columns import counted
from ..crew import Crew
from ..detectors.batches import Unjudged, on_ground
from ..film_reader import spans
from ..films import open_film
from ..opinion import together
from ..pictures import Unreadable, open_picture
from ..processes import Process
from ..rules import Rules
from .store import batched

logger = logging.getLogger(__name__)

CHUNK = 32  # files that go to a process at a time
DIED = "the process that read it died (out of memory, or an error in a decoder)"
Row = tuple[str, str, dict[str, Any]]  # key, stamp, data
Chunk = tuple[tuple[str, str], ...]


def audit_files(
    files: Sequence[tuple[str, str]], rules: Rules, marked: str | None = None, threads: int = 1
) -> list[Row]:
    """A row for each file (path, stamp).

    It is a result with `path`, or `unreadable` with the reason, or `other` for no picture. With
    `marked`, a folder, flagged pictures are written there with what counts drawn in.
    """
    first, second = rules.opinions(threads)
    rows: list[dict[str, Any]] = [{"path": path} for path, _ in files]
    shown: deque[_Frame] = deque()  # to the detector, and not judged yet
    pictures = _frames(rows, rules, shown)
    for result in first.results(pictures):
        frame = shown.popleft()
        _note(result, frame, "found")
        if second:
            _note(next(second.results([frame.picture])), frame, "second")
        if marked and not isinstance(result, Unjudged):
            _mark(frame, result, Path(marked))
    return [
        (path, stamp, _judged(row, rules)) for (path, stamp), row in zip(files, rows, strict=True)
    ]


@dataclass(frozen=True)
class _Frame:
    """A picture of a file, and the row of the file."""

    row: dict[str, Any]
    number: int
    picture: np.ndarray
    time: float | None = None  # in a film


def _frames(
    rows: Sequence[dict[str, Any]], rules: Rules, shown: deque[_Frame]
) -> Iterator[np.ndarray]:
    """The frames of the rows' files, in order; why a file can't be looked at goes into its row."""
    for row in rows:
        try:
            path = Path(read_back(row["path"]))
            opened = open_picture(path, rules.megapixels, rules.frames, alpha=True)
            found = {"frames_audited": 0, "found": [], "second": []}
            if opened is not None:
                row |= asdict(opened[0]) | found
                for number, picture in opened[1]:
                    row["frames_audited"] += 1
                    shown.append(_Frame(row, number, picture))
                    yield picture
                continue
            film = open_film(path)
            if film is None:
                row["other"] = True
                continue
            row |= film.told() | found
            for look in film.looks(rules.every, rules.megapixels, threads=1):
                row["frames_audited"] += 1
                row["frames"] = look.number + 1
                shown.append(_Frame(row, look.number, look.picture, look.time))
                yield look.picture
        except Unreadable as error:
            row["unreadable"] = str(error)
        except Exception as error:  # a file that can't be looked at is never the end of the run
            row["unreadable"] = valid(f"{type(error).__name__}: {error}")


def audit_parallel(
    files: Iterable[tuple[str, str]], rules: Rules, workers: int, marked: str | None = None
) -> Iterator[list[Row]]:
    """Rows of the files as they are done, in chunks, from `workers` processes.

    A process that dies takes nothing along: the files that it had are halved until the one that
    kills stands alone, which is unreadable.
    """
    bundles = ((tuple(chunk),) for chunk in batched(files, CHUNK))
    begin = partial(audit_files, [], rules)
    do = partial(audit_files, rules=rules, marked=marked)
    with Crew(lambda _: Process(), workers, begin, do, parts=_halves) as crew:
        for chunk, rows in crew.done(bundles):
            if rows is None:
                ((path, stamp),) = chunk
                logger.warning("%s: %s", path, DIED)
                rows = [(path, stamp, {"path": path, "unreadable": DIED})]
            yield rows


def _halves(chunk: Chunk) -> Sequence[Chunk]:
    half = len(chunk) // 2
    return (chunk[:half], chunk[half:]) if half else ()


def _judged(row: dict[str, Any], rules: Rules) -> dict[str, Any]:
    """A row as it is kept: judged, or with why not."""
    if "unreadable" in row or "other" in row:
        return {key: row[key] for key in row if key not in ("found", "second")}
    found, second = row.pop("found"), row.pop("second")
    if "seconds" in row:
        row["flagged_at"] = spans((each["time"], each["flagged"]) for each in found)
    return row | together(found) | ({"second": together(second)} if rules.second else {})


def _note(result: dict[str, Any] | Unjudged, frame: _Frame, what: str) -> None:
    """Add a frame's result to its row, with its number where a file has several.

    One that a detector can't judge makes the file unreadable.
    """
    row = frame.row
    if isinstance(result, Unjudged):
        row.setdefault("unreadable", str(result))
        return
    place: dict[str, Any] = {}
    if frame.time is not None:
        place = {"frame": frame.number, "time": round(frame.time, 3)}
    elif row["frames"] > 1:
        place = {"frame": frame.number}
    if place:
        found = [each | place for each in result["detections"]]
        result = result | place | {"detections": found}
    row[what].append(result)


def _mark(frame: _Frame, result: dict[str, Any], folder: Path) -> None:
    """Write a flagged picture with what counts drawn in, below `folder` where the file lay."""
    if not result["flagged"]:
        return
    import torch

    from .. import censor

    ground = counted(result)[0].get("on", "")
    image = torch.from_numpy(on_ground(frame.picture, ground).astype(np.float32) / 255.0)[None]
    drawn = censor.apply(image, {"images": [result]}, "annotate")[0]
    path = Path(read_back(frame.row["path"]))
    parts = [part for part in path.parts if part not in ("..", path.anchor)]
    name = fitting(f"{parts[-1]}{f'-{frame.number}' if frame.number else ''}.png")
    target = folder.joinpath(*parts[:-1], name)
    write_picture(target, Image.fromarray((drawn.numpy() * 255).round().astype(np.uint8)))
