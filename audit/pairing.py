"""Whose pictures are whose in audits that are to be compared: by key, by path, or by place."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from ..options.table import check, option
from ..options.words import amount
from .columns import PICTURES
from .reading import CompareError, check_counts, recounted

MOST = 6
SAME = ("preset", "thresholds", "min_size", "channel_order", "detector", "detector_version")
ASKED = ("preset", "from", "detector", "detector_version")  # of what a preset asks when unsure
BY_PROMPT = frozenset(each.key for each in PICTURES if each.several)
NAMES = ("key", "path")  # what a picture is called in a prompt set, and in a folder


@dataclass(frozen=True)
class Paired:
    """Reports whose images stand in one order, without those that not all of them have.

    `places` has where each image stood in its own report, `labels` what the pictures are called if
    they have names, `alone` the names by report of those that have no partner. The summaries are of
    the images that are left.
    """

    reports: Mapping[str, Mapping[str, Any]]
    places: Mapping[str, Sequence[int]]
    labels: Sequence[str]
    alone: Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class Naming:
    """What audits are called that have no names of their own."""

    names: str = option(
        "base, safe, sequential, modular",
        "Names of the audits, in their order, separated by commas.",
    )

    def __post_init__(self) -> None:
        check(self)

    def of(self, count: int) -> list[str]:
        """A name for each of so many audits. Raises CompareError for one that is none or twice."""
        given = [name.strip() for name in self.names.split(",")]
        called = [*given, *(f"audit {place + 1}" for place in range(len(given), count))][:count]
        if len(set(called)) != len(called) or not all(called):
            raise CompareError(
                f"Each audit needs its own name; the names are {', '.join(map(repr, called))}."
            )
        return called


def paired(reports: Mapping[str, Mapping[str, Any]]) -> Paired:
    """The reports with their images in one order: by key, by path below the folders, or by place.

    Raises CompareError for those that can't be compared, or contradict themselves.
    """
    _check_alike(reports)
    names = list(reports)
    found = {name: _called(name, reports[name]) for name in names}
    for name in names:
        check_counts(name, reports[name])
    called = {name: each for name, each in found.items() if each is not None}
    if not called:
        return _by_place(reports)
    lacking = [name for name in names if name not in called]
    if lacking:
        raise CompareError(
            f"The pictures of {lacking[0]!r} have no names, those of another audit have."
            " Compare prompt sets with prompt sets, folders with folders, batches with batches."
        )
    shared = [one for one in called[names[0]] if all(one in called[name] for name in names)]
    if not shared:
        raise CompareError(
            f"No picture is in all of these audits: {names[0]!r} has"
            f" {next(iter(called[names[0]]), 'none')!r}, {names[1]!r}"
            f" {next(iter(called[names[1]]), 'none')!r}. Use the same prompts, or file names."
        )
    for name in names[1:]:
        _check_made_alike(names[0], name, [reports[names[0]], reports[name]])
    kept = set(shared)
    places = {name: [called[name][one] for one in shared] for name in names}
    alone = {name: [one for one in called[name] if one not in kept] for name in names}
    return Paired(_picked(reports, places), places, shared, alone)


def _check_alike(reports: Mapping[str, Mapping[str, Any]]) -> None:
    """Raise CompareError for too few or many, unlike or empty reports."""
    names = list(reports)
    if not 2 <= len(names) <= MOST:
        raise CompareError(f"Two to {MOST} audits can be compared, not {len(names)}.")
    first = _rule(reports[names[0]]["summary"])
    for name in names[1:]:
        other = _rule(reports[name]["summary"])
        for key, value in first.items():
            if other[key] != value:
                raise CompareError(
                    f"{name!r} and {names[0]!r} were not audited in the same way: {key} is"
                    f" {other[key]} and {value}. Audit them with the same preset and detector."
                )
    for name in names:
        if not reports[name]["images"]:
            raise CompareError(f"{name!r} audited no picture, so there is nothing to compare.")


def _rule(summary: Mapping[str, Any]) -> dict[str, Any]:
    """By which rule pictures were judged; None for what it does not have."""
    asked = summary.get("asked", {})
    told = {key: summary.get(key) or None for key in SAME}
    return told | {f"the asked {key}": asked.get(key) for key in ASKED}


def _check_made_alike(first: str, other: str, reports: Sequence[Mapping[str, Any]]) -> None:
    """Raise CompareError unless pictures of one key have one seed and prompt.

    What was searched for may stand before a prompt.
    """
    one, two = ({each.get("key"): each for each in report["images"]} for report in reports)
    shared = [key for key in one if key is not None and key in two]
    unlike = [key for key in shared if not _alike(one[key], two[key])]
    if unlike:
        rows = [each[unlike[0]] for each in (one, two)]
        told = " and ".join(f"{row.get('prompt')!r} with seed {row.get('seed')}" for row in rows)
        raise CompareError(
            f"{first!r} and {other!r} are not of the same prompts and seeds:"
            f" {amount(len(unlike), 'picture')} of {len(shared)} differ (first: {unlike[0]},"
            f" {told}). Audit the same prompt file, with the same first seed."
        )


def _alike(one: Mapping[str, Any], two: Mapping[str, Any]) -> bool:
    shorter, longer = sorted((each.get("prompt", "") for each in (one, two)), key=len)
    before = bool(shorter) and longer.endswith(f" {shorter}")
    return one.get("seed") == two.get("seed") and (longer == shorter or before)


def _by_place(reports: Mapping[str, Mapping[str, Any]]) -> Paired:
    counts = {name: len(report["images"]) for name, report in reports.items()}
    if len(set(counts.values())) > 1:
        raise CompareError(
            f"These audits have different numbers of pictures: {counts}. Use the same prompts and"
            " seeds."
        )
    places = {name: list(range(count)) for name, count in counts.items()}
    return Paired(_picked(reports, places), places, (), {name: [] for name in reports})


def _picked(
    reports: Mapping[str, Any], places: Mapping[str, Sequence[int]]
) -> dict[str, dict[str, Any]]:
    """Each report with the images at these places alone, and its counts of them."""
    found = {}
    for name, report in reports.items():
        images = [report["images"][place] for place in places[name]]
        said = {key: each for key, each in report["summary"].items() if key not in BY_PROMPT}
        summary = {**said, **recounted(report, images)}
        found[name] = {**report, "images": images, "summary": summary}
    return found


def _called(name: str, report: Mapping[str, Any]) -> dict[str, int] | None:
    """The places of a report's pictures by what they are called; None if they have no names."""
    images = report["images"]
    what = next((each for each in NAMES if all(each in one for one in images)), None)
    if what is None:
        return None
    names = [image[what] for image in images]
    if what == "path":
        roots = report["summary"].get("paths") or _roots(report)
        names = [_below(roots, each) for each in names]
    found = {each: place for place, each in enumerate(names)}
    if len(found) < len(names):
        twice = next(each for place, each in enumerate(names) if found[each] != place)
        raise CompareError(f"{name!r} has several pictures named {twice!r}.")
    return found


def _roots(report: Mapping[str, Any]) -> list[str]:
    """The folder that all files of a report lie in, where it does not say what was audited."""
    files = [each["path"] for each in (*report["images"], *report.get("unreadable", ()))]
    return [os.path.commonpath([PurePosixPath(file).parent.as_posix() for file in files])]


def _below(roots: Sequence[str], path: str) -> str:
    """A path below the innermost of the folders that it lies in, with that one's number if several.

    So the same picture in two folders, one for each model, is called the same.
    """
    file = PurePosixPath(path)
    inside = [
        (len(PurePosixPath(root).parts), number)
        for number, root in enumerate(roots)
        if file.is_relative_to(root)
    ]
    if not inside:
        return path
    number = max(inside)[1]
    below = file.relative_to(roots[number])
    name = below.as_posix() if below.parts else file.name
    return name if len(roots) == 1 else f"{number + 1}: {name}"
