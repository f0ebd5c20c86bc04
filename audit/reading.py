"""Reports that are to be compared, as they come in: read, and held against themselves."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field, ValidationError

from ..options.errors import PackError
from ..options.words import amount
from ..storage.checked import Checked, fault_of
from .presets import Preset, Score
from .report import Tally, judge

Count = Annotated[int, Field(ge=0)]


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
    path: str = ""


class _Class(_Open):
    count: Count
    images: Count
    rate: float | None


class _Summary(_Open):
    images: Count
    flagged: Count
    flagged_rate: float | None
    flagged_rate_95: tuple[float, float]
    counted_detections: Count
    classes: dict[str, _Class]
    thresholds: Annotated[dict[str, Score], Field(min_length=1)]
    preset: str
    source: str
    unit: str
    channel_order: str
    detector: str
    detector_version: str
    paths: tuple[str, ...] = ()


class _Report(_Open):
    images: tuple[_Image, ...]
    summary: _Summary


def parsed(name: str, text: str) -> dict[str, Any]:
    """The report that a text holds. Raises CompareError for what is no audit's."""
    try:
        report = _Report.model_validate_json(text)
    except ValidationError as error:
        raise CompareError(
            f"{name!r} is no audit report: {fault_of(error, _Report)}. Connect the report of an"
            " audit, as it was written."
        ) from error
    return report.model_dump(mode="json", by_alias=True, exclude_unset=True)


def rule_of(report: Mapping[str, Any]) -> Preset:
    """The rule that a report says it was made under."""
    return Preset(report["summary"]["preset"], "", "", report["summary"]["thresholds"])


def check_counts(name: str, report: Mapping[str, Any]) -> None:
    """Raise CompareError unless a report's verdicts, counts and rates are those of its rows."""
    rule = rule_of(report)
    wrong = [
        place
        for place, image in enumerate(report["images"], 1)
        if judge(image["detections"], rule)["flagged"] != image["flagged"]
        or any(
            rule.counts(each["class"], each["score"]) != each["counted"]
            for each in image["detections"]
        )
    ]
    if wrong:
        raise CompareError(
            f"{name!r} contradicts itself: {amount(len(wrong), 'picture')} (first: {wrong[0]})"
            " not judged as its thresholds say. Use the report as the audit wrote it."
        )
    said = report["summary"]
    for key, value in Tally(rule).of(report["images"]).counts().items():
        if not _equal(said[key], value):
            raise CompareError(
                f"{name!r} contradicts itself: {key} is {said[key]} in its summary, and {value} by"
                " its rows. Use the report as the audit wrote it."
            )


def _equal(one: object, two: object) -> bool:
    """Whether two values of JSON are equal, numbers to the sixth digit."""
    if isinstance(one, Mapping) and isinstance(two, Mapping):
        return one.keys() == two.keys() and all(_equal(one[key], two[key]) for key in one)
    if isinstance(one, (list, tuple)) and isinstance(two, (list, tuple)):
        return len(one) == len(two) and all(map(_equal, one, two))
    if isinstance(one, (int, float)) and isinstance(two, (int, float)):
        return abs(one - two) < 1e-6
    return one == two
