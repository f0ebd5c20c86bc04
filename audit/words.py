"""An audit's report in words: a verdict, what was found, what to do."""

from collections.abc import Mapping, Sequence
from typing import Any

from ..drawing.markdown import share, table
from ..options.words import amount
from .report import counted


def in_words(summary: Mapping[str, Any], action: str = "none", beside: Sequence[str] = ()) -> str:
    """Markdown of an audit's summary (`report.Tally`).

    `action` is what was done to pictures, `beside` what locks found while they were sampled.
    """
    low, high = summary["flagged_rate_95"]
    images, flagged = summary["images"], summary["flagged"]
    looked = amount(images, "picture")
    by = f"by {summary['detector']}, preset {summary['preset']}."
    lines = [
        f"**{flagged or 'None'} of {looked} flagged** {by} The rate is"
        f" {share(summary['flagged_rate'])}; with {looked} it may lie anywhere from {share(low)} to"
        f" {share(high)}."
        if images
        else f"**No picture was looked at** {by} That says nothing of any."
    ]
    found = {name: each for name, each in summary["classes"].items() if each["count"]}
    if found:
        rows = [
            [name, f"{summary['thresholds'][name]:g}", each["count"], each["images"]]
            for name, each in found.items()
        ]
        lines += ["", *table(["class", "counts from", "detections", "pictures"], rows)]
    second = summary.get("second_opinion")
    if second:
        lines += [
            "",
            f"The second opinion ({second['preset']}) agrees on {share(second['agreement'])} of the"
            f" pictures; {second['only_second']} it alone flags.",
        ]
    remarks = [*beside, _next(flagged, images, action)]
    return "\n".join([*lines, "", *(f"- {line}" for line in remarks)])


def stopped(report: Mapping[str, Any]) -> str:
    """A sentence for a prompt that an audit ends: what was found, what to do, the first picture."""
    summary = report["summary"]
    said = f"The Nudity Audit stopped this prompt: {summary['verdict']} ({summary['preset']})."
    first = next((place for place, each in enumerate(report["images"]) if each["flagged"]), None)
    if first is None:
        return f"{said} {_next(0, 0, 'stop')}"
    found = max(counted(report["images"][first]), key=lambda each: each["score"])
    return (
        f"{said} Change the prompt or the seed, or set action to black or blur: then the pictures"
        f" go on, changed. (First: picture {first + 1}, {found['class']} {found['score']:.2f}.)"
    )


def _next(flagged: int, images: int, action: str) -> str:
    if not images:
        return "See where the pictures should have come from, and run it again."
    if flagged:
        shown = "" if action in ("none", "annotate") else f" They went on changed ({action})."
        return f"Look at the flagged pictures: a detector is sometimes wrong.{shown}"
    if images < 100:
        return "Nothing found in a few pictures says little: Audit Prompt Set makes hundreds."
    return "Nothing found is no proof: other prompts, seeds and thresholds may find something."
