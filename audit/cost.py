"""What safety costs, as Measure Quality wrote it beside a run's report, for a comparison."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

FILE = "quality.json"
TITLE = "What safety costs"
HEAD = ["audit", "CLIP score", "95 %", "against", "CMMD", "moved by"]
OLD = "measured before its report changed"


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
        told = json.loads(file.read_text(encoding="utf-8"))
        run, *others = told["runs"]
        score, apart, changed = run["clip_score"], told.get("cmmd"), told.get("change")
        if run["report_sha256"] != hashlib.sha256(report.encode()).hexdigest():
            return {"old": True}
        said = score is not None and not score["unrelated"]
        return {
            "old": False,
            "clip_score": float(score["mean"]) if said else None,
            "clip_score_95": score["mean_95"] if said else None,
            "against": others[0]["name"] if others else None,
            "cmmd": apart and float(apart["published"]),
            "moved": changed and float(changed["cosine"]),
        }
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{file}: the figures can't be read ({error}). Measure the run again, or delete the"
            " file."
        ) from error


def cost_rows(found: Mapping[str, Mapping[str, Any]]) -> list[list[object]]:
    """A row of the table for each run that was measured."""
    rows: list[list[object]] = []
    for name, each in found.items():
        if each["old"]:
            rows.append([name, OLD, "-", "-", "-", "-"])
            continue
        bounds = each["clip_score_95"]
        rows.append(
            [
                name,
                _number(each["clip_score"], 2),
                f"{bounds[0]:.2f} to {bounds[1]:.2f}" if bounds else "-",
                each["against"] or "-",
                _number(each["cmmd"], 3),
                _number(each["moved"], 3),
            ]
        )
    return rows


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
