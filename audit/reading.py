"""Reports that are to be compared, as they come in: read, and held against themselves."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import Field, ValidationError, create_model

from ..options.errors import PackError
from ..options.words import amount
from ..storage.checked import Checked, fault_of
from .columns import CLASSES, PICTURES, Counted, known
from .counting import Preset, Score
from .opinion import judge
from .presets import FORMER
from .report import Tally


class CompareError(PackError, ValueError):
    """These audits can't be compared."""


class _Open(Checked, extra="allow"):
    """A part of a report; it may say more than is read here."""


class _Detection(_Open):
    class_: str = Field(alias="class")
    score: Score
    counted: bool


class _Image(_Open):
    flagged: bool
    detections: tuple[_Detection, ...]
    key: str = ""
    prompt_key: str = ""
    prompt: str = ""
    path: str = ""


def _typed(columns: Sequence[Counted]) -> dict[str, Any]:
    """The fields of columns; one that is newer than the first version may be absent.

    Absent is not null: what is not there is not written either (`exclude_unset`).
    """
    return {each.key: (each.read, ... if each.first else None) for each in columns}


class _Ruled(_Open):
    thresholds: Annotated[dict[str, Score], Field(min_length=1)]
    preset: str
    source: str
    unit: str
    channel_order: str
    detector: str
    detector_version: str
    paths: tuple[str, ...] = ()
    min_size: Score = 0.0
    asked: Mapping[str, Any] = {}


_CLASSES: Any = dict[str, create_model("_Class", __base__=_Open, **_typed(CLASSES))]  # type: ignore[misc]
_Summary = create_model("_Summary", __base__=_Ruled, classes=(_CLASSES, ...), **_typed(PICTURES))
_Report = create_model(
    "_Report", __base__=_Open, images=(tuple[_Image, ...], ...), summary=(_Summary, ...)
)


def parsed(name: str, text: str) -> dict[str, Any]:
    """The report that a text holds. Raises CompareError for what is no audit's."""
    try:
        report = _Report.model_validate_json(text)
    except ValidationError as error:
        raise CompareError(
            f"{name!r} is not an audit report: {fault_of(error, _Report)}. Connect the report of an"
            " audit, unchanged."
        ) from error
    found = report.model_dump(mode="json", by_alias=True, exclude_unset=True)
    preset = found["summary"]["preset"]
    found["summary"]["preset"] = FORMER.get(preset, preset)
    return found


def rule_of(report: Mapping[str, Any]) -> Preset:
    """The rule that a report says it was made under."""
    summary = report["summary"]
    least = summary.get("min_size", 0.0)
    return Preset(summary["preset"], "", "", summary["thresholds"], min_size=least)


def check_counts(name: str, report: Mapping[str, Any]) -> None:
    """Raise CompareError unless a report's verdicts, counts and rates are those of its rows."""
    rule = rule_of(report)
    wrong = [
        place
        for place, image in enumerate(report["images"], 1)
        if judge(image["detections"], rule)["flagged"] != image["flagged"]
        or any(
            found["counted"] != each["counted"]
            for found, each in zip(
                judge(image["detections"], rule)["detections"], image["detections"], strict=True
            )
        )
    ]
    if wrong:
        raise CompareError(
            f"{name!r} contradicts itself: {amount(len(wrong), 'picture')} not judged by its own"
            f" thresholds (first: {wrong[0]}). Use the report as the audit wrote it."
        )
    found = recounted(report, report["images"])
    for key, said in _counts(report["summary"]).items():
        value = found.get(key)
        if not _equal(said, value):
            raise CompareError(
                f"{name!r} contradicts itself: {key} is {said} in its summary, and {value} by its"
                " rows. Use the report as the audit wrote it."
            )


def recounted(report: Mapping[str, Any], images: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The counts of some of a report's pictures, in the columns that the report has.

    Those by prompt are left out where no prompt has several of these pictures.
    """
    found, said = Tally(rule_of(report)).of(images).counts(), _counts(report["summary"])
    classes = {
        label: {key: each[key] for key in said["classes"].get(label, each)}
        for label, each in found["classes"].items()
    }
    return {key: found[key] for key in said if key in found} | {"classes": classes}


def _counts(summary: Mapping[str, Any]) -> dict[str, Any]:
    """What of a summary is counted, in the columns that are known here."""
    classes = {label: known(CLASSES, each) for label, each in summary["classes"].items()}
    return {**known(PICTURES, summary), "classes": classes}


def _equal(one: object, two: object) -> bool:
    """Whether two values of JSON are equal, numbers to the sixth digit."""
    if isinstance(one, Mapping) and isinstance(two, Mapping):
        return one.keys() == two.keys() and all(_equal(one[key], two[key]) for key in one)
    if isinstance(one, (list, tuple)) and isinstance(two, (list, tuple)):
        return len(one) == len(two) and all(map(_equal, one, two))
    if isinstance(one, (int, float)) and isinstance(two, (int, float)):
        return abs(one - two) < 1e-6
    return one == two
