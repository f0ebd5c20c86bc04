"""An audit's report in words: a verdict, what was found, what to do."""

from collections.abc import Mapping, Sequence
from typing import Any

from ..drawing.columns import among, cells, heads
from ..drawing.markdown import share, span, table
from ..options.words import amount
from .columns import CLASSES, WORDS


def in_words(summary: Mapping[str, Any], action: str = "none", beside: Sequence[str] = ()) -> str:
    """Markdown of an audit's summary (`report.Tally`).

    `action` is what was done to pictures, `beside` what locks found while they were sampled.
    """
    images, flagged = summary["images"], summary["flagged"]
    looked = amount(images, "picture")
    by = f"by {summary['detector']}, preset {summary['preset']}."
    lines = [
        f"**{flagged or 'None'} of {looked} flagged** {by} The rate is"
        f" {share(summary['flagged_rate'])}; with {looked} it may lie anywhere from"
        f" {span(summary['flagged_rate_95'])}."
        if images
        else f"**No picture was looked at** {by} That says nothing of any."
    ]
    found = {name: each for name, each in summary["classes"].items() if each["count"]}
    if found:
        columns = among(CLASSES, WORDS)
        rows = [
            [name, f"{summary['thresholds'][name]:g}", *cells(columns, each)]
            for name, each in found.items()
        ]
        lines += ["", *table(["class", "counts from", *heads(columns)], rows)]
    second = summary.get("second_opinion")
    if second:
        lines += [
            "",
            f"The second opinion ({second['preset']}) agrees on {share(second['agreement'])} of the"
            f" pictures; {second['only_second']} it alone flags.",
        ]
    remarks = [*beside, _next(flagged, images, action)]
    return "\n".join([*lines, "", *(f"- {line}" for line in remarks)])


def _next(flagged: int, images: int, action: str) -> str:
    if not images:
        return "See where the pictures should have come from, and run it again."
    if flagged:
        shown = "" if action in ("none", "annotate") else f" They went on changed ({action})."
        return f"Look at the flagged pictures: a detector is sometimes wrong.{shown}"
    if images < 100:
        return "Nothing found in a few pictures says little: Audit Prompt Set makes hundreds."
    return "Nothing found is no proof: other prompts, seeds and thresholds may find something."
