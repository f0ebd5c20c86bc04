"""Audits of files: one function looks at some; processes, or Ray, call it on millions."""

import logging
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from multiprocessing import connection
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ...storage.names import fitting, read_back, valid
from ...storage.whole import write_picture
from ..columns import counted
from ..detectors.batches import Unjudged, on_ground
from ..film_reader import spans
from ..films import open_film
from ..opinion import together
from ..pictures import Unreadable, open_picture
from ..rules import Rules
from .store import batched

logger = logging.getLogger(__name__)

CHUNK = 32  # files that go to a process at a time
DIED = "the process that read it died (out of memory, or an error in a decoder)"
Row = tuple[str, str, dict[str, Any]]  # key, stamp, data


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

    A process that dies takes nothing along: its files are tried again one by one, and the one that
    kills is unreadable.
    """
    chunks, pool = batched(files, CHUNK), _pool(workers)
    pending: dict[Future[list[Row]], list[tuple[str, str]]] = {}
    try:
        while True:
            while len(pending) < 2 * workers and (chunk := next(chunks, None)):
                pending[pool.submit(audit_files, chunk, rules, marked)] = chunk
            if not pending:
                return
            for done in wait(pending, return_when=FIRST_COMPLETED).done:
                chunk = pending[done]
                try:
                    rows = done.result()
                except BrokenProcessPool:
                    lost = list(pending.values())
                    pending.clear()
                    pool.shutdown(wait=False, cancel_futures=True)
                    for each in lost:
                        yield _alone(each, rules, marked)
                    pool = _pool(workers)
                    break
                del pending[done]
                yield rows
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _alone(chunk: list[tuple[str, str]], rules: Rules, marked: str | None) -> list[Row]:
    """The rows of a chunk whose process may have died: halved until the culprit stands alone."""
    with _pool(1) as pool:
        try:
            return pool.submit(audit_files, chunk, rules, marked).result()
        except BrokenProcessPool:
            if len(chunk) == 1:
                _check_start(rules)
                logger.warning("%s: %s", chunk[0][0], DIED)
                return [(*chunk[0], {"path": chunk[0][0], "unreadable": DIED})]
    half = len(chunk) // 2
    return [*_alone(chunk[:half], rules, marked), *_alone(chunk[half:], rules, marked)]


def _check_start(rules: Rules) -> None:
    """Raise RuntimeError when a process dies that is given no file: then no file is to blame."""
    try:
        with _pool(1) as pool:
            pool.submit(audit_files, [], rules).result()
    except BrokenProcessPool as error:
        raise RuntimeError(
            "No audit process can run here: one died before it was given a file, with the message"
            " above. Finished rows are kept, and the same command continues from there."
        ) from error


def _pool(workers: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _start)


def _start() -> None:
    """Start a worker, which ignores Ctrl-C, ends with its parent, and limits no pixels."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Image.MAX_IMAGE_PIXELS = None
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()


def _end_with(sentinel: int) -> None:
    """End this process when the one whose sentinel this is has ended."""
    connection.wait([sentinel])
    os._exit(1)


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
