"""The short form of a safety LoRA's report, as its metadata have it: `msl.report`, under the seal.

Counts of pictures, made from the same prompts and seeds by the base and by the safe model. It names
the tensors and the strength that were measured, so that it is of no other LoRA.
"""

import json
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field, ValidationError, model_validator

from ..options.words import amount
from ..storage.checked import Checked, fault_of, parsed
from .errors import ModuleFileError
from .seal import strength_of

KEY = "msl.report"
LARGEST = 1000  # bytes
NO_REPORT = "no report"
Count = Annotated[int, Field(ge=0, le=10**6)]
Name = Annotated[str, Field(min_length=1, max_length=80)]


AMOUNTS = {
    "told": lambda count: f"{amount(count, 'picture')} as told",
    "others": lambda count: amount(count, "other"),
    "adversarial": lambda count: f"{count} adversarial",
}


class Drawn(Checked):
    """Pictures that were made for prompts of the concept, and how many of them were flagged.

    `beside` is of the safe model with a task LoRA beside it, `on_top` of one that was trained on
    top of it; None where there was none.
    """

    pictures: Annotated[int, Field(ge=1, le=10**6)]
    base: Count
    safe: Count
    beside: Count | None = None
    on_top: Count | None = None

    @model_validator(mode="after")
    def _parts(self) -> "Drawn":
        for name in ("base", "safe", "beside", "on_top"):
            _part(name, getattr(self, name), self.pictures)
        return self


class Changed(Checked):
    """Pictures of harmless prompts, and how many of them became other pictures."""

    pictures: Annotated[int, Field(ge=1, le=10**6)]
    changed: Count

    @model_validator(mode="after")
    def _parts(self) -> "Changed":
        _part("changed", self.changed, self.pictures)
        return self


class ShortReport(Checked):
    """What a safety LoRA takes away and harms, measured on one base with one detector."""

    format: Literal[1] = 1
    date: Annotated[str, Field(pattern=r"^\d{4}-\d\d-\d\d$")]
    base: Name
    base_sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None = None
    tensors_sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    strength: Annotated[float, Field(gt=0)]
    preset: Name
    detector: Name
    told: Drawn
    others: Drawn | None = None
    adversarial: Drawn | None = None
    near: Changed | None = None
    far: Changed | None = None

    def text(self) -> str:
        """As the metadata have it."""
        return json.dumps(self.model_dump(exclude_none=True), separators=(",", ":"))

    def line(self) -> str:
        """What people read of it in a line."""
        asked = {"told": self.told, "others": self.others, "adversarial": self.adversarial}
        there = {kind: each for kind, each in asked.items() if each}
        found = [
            f"{_share(each.safe, each)} of {AMOUNTS[kind](each.pictures)}"
            for kind, each in there.items()
        ]
        bases = [each.base / each.pictures for each in there.values()]
        words = f"{self.preset}: {', '.join(found)}; base {_span(bases)}"
        for name, each in (("near", self.near), ("far", self.far)):
            words += f"; {name} pictures changed {_share(each.changed, each)}" if each else ""
        return words


def short_of(text: str) -> ShortReport:
    """The short form in a report's JSON, or that JSON itself. Raises ModuleFileError."""
    try:
        found = parsed(text)
        if isinstance(found, dict) and "short" in found:
            if found.get("partial"):
                raise ValueError("it is partial: its run was stopped. Run it to the end")
            if found["short"] is None:
                raise ValueError("it has no pictures of the sealed prompts")
            found = found["short"]
        return ShortReport.model_validate_json(json.dumps(found))
    except ValueError as error:
        raise ModuleFileError(f"The report can't be sealed: {_said(error)}.") from error


def sealed_report(text: str, tensors_sha256: str, metadata: Mapping[str, str]) -> str:
    """The text of `msl.report` for a LoRA of these tensors, from its report's JSON.

    Raises ModuleFileError for a report that is partial, of another LoRA, too long, or has a value
    that can't be.
    """
    found = short_of(text)
    fault = _other(found, tensors_sha256, metadata)
    made = found.text()
    if len(made.encode()) > LARGEST:
        size = amount(len(made.encode()), "byte")
        fault = f"its short form has {size}; at most {LARGEST} are sealed"
    if fault:
        raise ModuleFileError(f"The report can't be sealed: {fault}.")
    return made


def report_line(metadata: Mapping[str, str]) -> str:
    """What a safety LoRA's sealed report says, in a line; that there is none, or can't be read."""
    if KEY not in metadata:
        return NO_REPORT
    try:
        text = metadata[KEY]
        if len(text.encode()) > LARGEST:
            raise ValueError(f"it has more than {LARGEST} bytes")
        parsed(text)
        found = ShortReport.model_validate_json(text)
        fault = _other(found, metadata.get("msl.tensors_sha256", ""), metadata)
    except ValueError as error:
        fault = _said(error)
    return f"report not readable: {fault}" if fault else found.line()


def _other(found: ShortReport, tensors_sha256: str, metadata: Mapping[str, str]) -> str:
    """Why a report is not of these tensors at this strength; empty where it is."""
    if found.tensors_sha256 != tensors_sha256:
        return "it is of another LoRA"
    if found.strength != (strength := strength_of(metadata)):
        return f"it was measured at strength {found.strength:g}, and the LoRA has {strength:g}"
    return ""


def _said(error: ValueError) -> str:
    return fault_of(error, ShortReport) if isinstance(error, ValidationError) else str(error)


def _part(name: str, count: int | None, pictures: int) -> None:
    if count is not None and count > pictures:
        raise ValueError(f"`{name}` is {count} of {pictures} pictures, which can't be")


def _share(count: int, of: Drawn | Changed) -> str:
    return f"{100 * count / of.pictures:.0f} %"


def _span(shares: list[float]) -> str:
    ends = sorted({round(100 * each) for each in shares})
    return f"{' to '.join(str(each) for each in (ends[0], ends[-1])[: len(ends)])} %"
