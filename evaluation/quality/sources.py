"""The pictures that are measured, with their prompts: of a run that was audited, or of a folder."""

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...audit.folders.files import walk
from ...audit.pictures import SUFFIXES
from ...audit.reading import parsed
from ...modules.paths import leads_out
from ...options.words import amount
from ...storage.faults import told
from ...storage.names import read_back, valid
from ...storage.texts import TextError, read_text
from .embeddings import QualityError

REPORT = "report.json"
GONE, NOT_KEPT, NOT_MADE = "its file is gone", "no file of it was kept", "it was not made"
HIDDEN = "it was kept censored, or may have been"
CLEAR: Mapping[str, Any] = {"flagged": False, "detections": []}  # of a picture nobody audited


@dataclass(frozen=True)
class Picture:
    """A picture file, what it is called, its prompt if it is known, and its row of the audit."""

    name: str
    file: Path
    prompt: str | None
    row: Mapping[str, Any] = field(default_factory=lambda: CLEAR)

    @property
    def made_as(self) -> tuple[object, ...]:
        """What two pictures that are compared must have in common, as far as it is known."""
        return (
            self.prompt,
            *(self.row.get(each) for each in ("negative_prompt", "seed", "width", "height")),
        )


@dataclass(frozen=True)
class Source:
    """Pictures of one model, or of the world. `left_out` has the names of others, by reason.

    `rate` is the share of the run's pictures that is flagged and `digest` that of its report; a
    folder that was not audited has neither.
    """

    name: str
    folder: Path
    pictures: tuple[Picture, ...]
    left_out: Mapping[str, list[str]]
    report: Mapping[str, Any] | None = None
    digest: str = ""


def read_source(folder: Path, name: str = "") -> Source:
    """The pictures of a run's folder, or of any other. Raises QualityError where there are none."""
    if not folder.is_dir():
        raise QualityError(f"{folder}: there is no such folder.")
    name = name or folder.resolve().name
    found = _of_run if (folder / REPORT).is_file() else _of_folder
    source = found(folder, name)
    if not source.pictures:
        why = "; ".join(reasons(source.left_out)) or "there is none"
        raise QualityError(
            f"{folder}: no picture can be measured ({why})."
            " A run keeps its pictures when keep is 'all, as they are'."
        )
    return source


def read_run(folder: Path) -> Source:
    """An audited run, with pictures or without. Raises QualityError for another folder."""
    if not (folder / REPORT).is_file():
        raise QualityError(f"{folder}: no run of a prompt set is there ({REPORT} is missing).")
    return _of_run(folder, folder.resolve().name)


def reasons(left_out: Mapping[str, list[str]]) -> list[str]:
    """A line for each reason: how many pictures, why, and the first."""
    return [
        f"{amount(len(names), 'picture')}: {why} (first: {names[0]})"
        for why, names in left_out.items()
        if names
    ]


def _of_run(folder: Path, name: str) -> Source:
    try:
        text = (folder / REPORT).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise QualityError(f"{folder / REPORT}: it can't be read ({told(error)}).") from error
    report = parsed(str(folder / REPORT), text)
    pictures: list[Picture] = []
    left_out: defaultdict[str, list[str]] = defaultdict(list)
    for row in report["images"]:
        called = str(row.get("key") or row.get("path") or len(pictures) + 1)
        why = _fault(row, folder)
        if why:
            left_out[why].append(called)
        else:
            pictures.append(Picture(called, folder / row["picture"], row.get("prompt"), row))
    left_out[NOT_MADE] += [str(row.get("key", "?")) for row in report.get("unreadable", ())]
    digest = hashlib.sha256(text.encode()).hexdigest()
    return Source(name, folder, tuple(pictures), left_out, report, digest)


def _fault(row: Mapping[str, Any], folder: Path) -> str:
    """Why a row's picture can't be measured; empty when it can."""
    kept = row.get("picture")
    if not kept:
        return NOT_KEPT
    if not isinstance(kept, str) or leads_out(kept):
        raise QualityError(f"{folder / REPORT}: {kept!r} is not the name of a file in this folder.")
    if not (folder / kept).is_file():
        return GONE
    # a run of an earlier version does not say; what is not flagged is never changed
    return HIDDEN if row.get("censored", row["flagged"]) else ""


def _of_folder(folder: Path, name: str) -> Source:
    pictures: list[Picture] = []
    left_out: defaultdict[str, list[str]] = defaultdict(list)
    for file in _picture_files(folder):
        called = valid(file.relative_to(folder).as_posix())
        try:
            pictures.append(Picture(called, file, _caption(file)))
        except (OSError, TextError) as error:
            left_out[f"its caption can't be read ({told(error)})"].append(called)
    return Source(name, folder, tuple(pictures), left_out)


def _picture_files(folder: Path) -> Iterator[Path]:
    for path, _ in walk([folder]):
        file = Path(read_back(path))
        if file.suffix.lower() in SUFFIXES:
            yield file


def _caption(file: Path) -> str | None:
    """The text beside a picture; None where there is none, or nothing in it."""
    beside = file.with_suffix(".txt")
    return (read_text(beside).strip() or None) if beside.is_file() else None
