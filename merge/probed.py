"""What a probe found: the verdict, the report, and the same in words. No private prompt in them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from ..drawing.markdown import share, table
from ..function.adaptive import Search
from ..function.limits import Limits, against_limits
from ..function.number import Number
from ..options.words import amount
from .settings import Asked

SEALED = "sealed"
Json: TypeAlias = dict[str, Any]  # for JSON
WORDS = {SEALED: "sealed", "held_out": "held out", "private": "private", "given": "yours"}
PASSED = "**Passed**"
AUDIT = "**Must be audited**"
HEAD = ("prompts", "asked", "safety left", "95 % interval")
ADVICE = (
    "Sampling continues unless Modular Merge or the operator's settings stop it. Audit the"
    " pictures, remove a task LoRA, or lower its strength."
)


@dataclass(frozen=True)
class Found:
    """One safety module: its number over all moments, or why there is none.

    `groups` has the prompts that were asked, by where they come from, `counts` how many there are.
    `merged` and `safe` say of each prompt how much of the concept the models draw, the base 1.
    """

    name: str
    sha256: str
    groups: Mapping[str, Sequence[str]]
    counts: Mapping[str, int]
    number: Number | None = None
    why: str = ""
    merged: Mapping[str, float] = field(default_factory=dict)
    safe: Mapping[str, float] = field(default_factory=dict)
    search: Search | None = None
    no_search: str = ""

    @property
    def least_first(self) -> dict[str, tuple[float, float]]:
        """(rho_f, rise) of each prompt that was measured, that with the least rho_f first."""
        return {} if self.number is None else self.number.by_prompt

    def of(self, group: str) -> Number | None:
        """The number over a group's prompts; None where it is too little to be told."""
        if self.number is None or not self.groups[group]:
            return None
        found = self.number.among(self.groups[group])
        return found if found.is_measurable else None


@dataclass(frozen=True)
class Probed:
    """All safety modules of a model, and under which limits they are judged.

    `changed` is what was on the model beside the merge, and not measured.
    """

    found: Sequence[Found]
    limits: Limits
    asked: Asked
    changed: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether all that was asked was measured, is finite, and is not under `look` (Limits)."""
        return bool(self.found) and not self.reasons

    @property
    def reasons(self) -> list[str]:
        """Why it did not pass, in words; empty when it did."""
        found = [f"{amount(len(self.changed), 'change')} beside the merge can't be measured"][
            : bool(self.changed)
        ]
        for each in self.found:
            found += self._reasons(each)
        # with several modules, others' prompts may be none of one's
        for group in ("private", "given"):
            asked = [each for each in self.found if group in each.groups and each.number]
            if asked and not any(each.of(group) for each in asked):
                found.append(f"no safety LoRA changes anything for the {WORDS[group]} prompts")
        return found

    def _reasons(self, each: Found) -> list[str]:
        if each.number is None:
            return [f"{each.name}: {each.why}"]
        found = []
        for group in each.groups:
            number = each.of(group)
            if number is None and group in ("private", "given"):
                continue
            left = math.nan if number is None else against_limits(number)
            if not left >= self.limits.look:
                told = (
                    "could not be measured"
                    if math.isnan(left)
                    else f"is {left:.3f}, under {self.limits.look}"
                )
                found.append(f"retained safety of {each.name} on the {WORDS[group]} prompts {told}")
        if each.no_search:
            found.append(f"{each.name}: the search for a soft prompt did not run, {each.no_search}")
        elif each.search and not each.search.retained >= self.limits.look:
            found.append(
                f"with a soft prompt {each.name} keeps {each.search.retained:.3f}, under"
                f" {self.limits.look}"
            )
        return found

    @property
    def least(self) -> float:
        """The least retained safety of a group of a module; NaN where one has none."""
        left = []
        for each in self.found:
            numbers = [each.of(group) for group in each.groups]
            if each.number is None or each.of(SEALED) is None:
                return math.nan
            left += [number.retained for number in numbers if number]
        return math.nan if any(map(math.isnan, left)) else min(left, default=math.nan)

    @property
    def against_limits(self) -> float:
        """The least of what limits are held against: infinite where nothing is, NaN as above."""
        if math.isnan(self.least):
            return math.nan
        numbers = [each.of(group) for each in self.found for group in each.groups]
        return min(against_limits(number) for number in numbers if number)

    def shown(self, prompt: str) -> str:
        """A prompt as it may be told: a private one by its number in the operator's file."""
        private = list(self.asked.private)
        return f"private {private.index(prompt) + 1}" if prompt in private else prompt

    def report(self) -> Json:
        """For JSON: `passed`, `reasons`, `limits`, and `safety` with a row for each module."""
        return {
            "passed": self.passed,
            "reasons": self.reasons,
            "limits": vars(self.limits),
            "least": _number(self.least),
            "adaptive_steps": self.asked.adaptive_steps,
            "changed": list(self.changed),
            "safety": [self._row(each) for each in self.found],
        }

    def _row(self, each: Found) -> Json:
        row: Json = {"name": each.name, "sha256": each.sha256, "reason": each.why or None}
        row["groups"] = {group: self._group(each, group) for group in each.groups}
        row["prompts"] = {
            self.shown(prompt): {
                "retained_in_function": _number(rho),
                "rise": _number(rise),
                "drawn": {"base": 1.0, "safe": _number(each.safe[prompt])}
                | {"merged": _number(each.merged[prompt])},
            }
            for prompt, (rho, rise) in each.least_first.items()
        }
        if self.asked.adaptive_steps:
            found = each.search
            row["adaptive"] = (
                {"retained_in_function": None, "reason": each.no_search or each.why}
                if found is None
                else {"retained_in_function": _number(found.retained)}
                | {name: _number(value) for name, value in vars(found).items()}
            )
        return row

    def _group(self, each: Found, group: str) -> Json:
        row: Json = {"prompts": each.counts[group], "asked": len(each.groups[group])}
        number = each.of(group)
        if number is None:
            return row | {"retained_in_function": None}
        prompt, (least, _) = next(iter(number.by_prompt.items()))
        ends = number.interval() if len(number.by_prompt) > 1 else None
        return row | {
            "retained_in_function": _number(number.retained),
            "interval": ends and [*map(_number, ends)],
            "least_prompt": {"prompt": self.shown(prompt), "retained_in_function": _number(least)},
            "rise": _number(number.rise),
            "back": _number(number.back),
            "against": _number(number.against),
        }


def in_words(probed: Probed) -> str:
    """Markdown of a probe."""
    lines = [_verdict(probed)]
    for each in probed.report()["safety"]:
        rows, least = [], []
        for group, told in each["groups"].items():
            ends, low = told.get("interval"), told.get("least_prompt")
            rows.append(
                [
                    WORDS[group],
                    f"{told['asked']} of {told['prompts']}",
                    share(told["retained_in_function"]),
                    f"{share(ends[0])} to {share(ends[1])}" if ends else "-",
                ]
            )
            least += [(low["retained_in_function"], low["prompt"])] if low else []
        if "adaptive" in each:
            left = share(each["adaptive"]["retained_in_function"])
            rows.append(["soft prompt", amount(probed.asked.adaptive_steps, "step"), left, "-"])
        lines += ["", each["name"], "", *table(HEAD, rows)]
        known = [pair for pair in least if pair[0] is not None]
        if known:
            lines += ["", f"Least of a prompt: {share(min(known)[0])}, {min(known)[1]}"]
    if probed.reasons:
        lines += ["", *(f"- {line}" for line in (*probed.reasons, ADVICE))]
    return "\n".join(lines)


def stopped(probed: Probed) -> str:
    """A sentence for a prompt that a probe ends: what is wrong, what to do, the first reason."""
    return (
        "Probe Safety stopped this prompt: too little is left of the safety LoRA, or not all of it"
        " could be measured. Take out a task LoRA, lower its strength, or set action to report and"
        f" audit the pictures. ({amount(len(probed.reasons), 'reason')}, first:"
        f" {probed.reasons[0]}.)"
    )


def _verdict(probed: Probed) -> str:
    if probed.passed:
        return (
            f"{PASSED}: at least {share(probed.least)} of safety is left for every group of"
            " prompts."
        )
    return f"{AUDIT}, for {amount(len(probed.reasons), 'reason')}."


def _number(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(f"{value:.6g}")
