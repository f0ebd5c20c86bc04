"""What safety costs, as Measure Quality wrote it beside a run's report, for a comparison."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError

from ..options.language import phrase, say
from ..storage.checked import Checked, fault_of

FILE = "quality.json"
TITLE = phrase("What safety costs")
HEAD = [
    phrase("audit"),
    phrase("CLIP score"),
    "95 %",
    phrase("against"),
    "CMMD",
    phrase("moved by"),
]
OLD = phrase("measured before its report changed")


class _Part(Checked, extra="ignore"):
    """A part of the file; it says more than is read here."""


class _Score(_Part):
    mean: float
    mean_95: tuple[float, float] | None
    unrelated: bool


class _Run(_Part):
    name: str
    report_sha256: str | None
    clip_score: _Score | None


class _Cmmd(_Part):
    published: float


class _Change(_Part):
    cosine: float


class _Quality(_Part):
    runs: Annotated[tuple[_Run, ...], Field(min_length=1)]
    cmmd: _Cmmd | None = None
    change: _Change | None = None


def costs(runs: Mapping[str, tuple[Path, str]]) -> dict[str, dict[str, Any]]:
    """What was measured of the runs, by name, from their folders; each with its report's text.

    A run that was not measured has none. One whose report changed since is `old`, without figures.
    """
    return {name: found for name, (folder, text) in runs.items() if (found := _cost(folder, text))}


def _cost(folder: Path, report: str) -> dict[str, Any] | None:
    """Raises ValueError for a file that is there and can't be read."""
    file = folder / FILE
    if not file.is_file():
        return None
    try:
        told = _Quality.model_validate_json(file.read_text(encoding="utf-8"))
    except ValidationError as error:
        raise _unread(file, fault_of(error, _Quality)) from error
    except (OSError, UnicodeDecodeError) as error:
        raise _unread(file, str(error)) from error
    run, *others = told.runs
    if run.report_sha256 != hashlib.sha256(report.encode()).hexdigest():
        return {"old": True}
    score = run.clip_score if run.clip_score and not run.clip_score.unrelated else None
    return {
        "old": False,
        "clip_score": score and score.mean,
        "clip_score_95": score and score.mean_95,
        "against": others[0].name if others else None,
        "cmmd": told.cmmd and told.cmmd.published,
        "moved": told.change and told.change.cosine,
    }


def _unread(file: Path, fault: str) -> ValueError:
    return ValueError(
        f"{file}: the figures can't be read ({fault}). Measure the run again, or delete the file."
    )


def cost_rows(found: Mapping[str, Mapping[str, Any]]) -> list[list[object]]:
    """A row of the table for each run that was measured."""
    rows: list[list[object]] = []
    for name, each in found.items():
        if each["old"]:
            rows.append([name, say(OLD), "-", "-", "-", "-"])
            continue
        bounds = each["clip_score_95"]
        rows.append(
            [
                name,
                _number(each["clip_score"], 2),
                say("{low} to {high}", low=f"{bounds[0]:.2f}", high=f"{bounds[1]:.2f}")
                if bounds
                else "-",
                each["against"] or "-",
                _number(each["cmmd"], 3),
                _number(each["moved"], 3),
            ]
        )
    return rows


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
