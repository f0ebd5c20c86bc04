"""An audit's report in words: a verdict, what was found, what to do."""

from collections.abc import Mapping, Sequence

from ..drawing.markdown import share, table


def in_words(summary: Mapping, action: str = "none", beside: Sequence[str] = ()) -> str:
    """Markdown of an audit's summary (`report.Tally`).

    `action` is what was done to pictures, `beside` what locks found while they were sampled.
    """
    low, high = summary["flagged_rate_95"]
    images, flagged = summary["images"], summary["flagged"]
    verdict = f"**{flagged or 'None'} of {images} pictures flagged**"
    lines = [
        f"{verdict} by {summary['detector']}, preset {summary['preset']}. The rate is"
        f" {share(summary['flagged_rate'])}; with so many pictures it may lie anywhere from"
        f" {share(low)} to {share(high)}.",
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


def _next(flagged: int, images: int, action: str) -> str:
    if flagged:
        shown = "" if action in ("none", "annotate") else f" They went on changed ({action})."
        return f"Look at the flagged pictures: a detector is sometimes wrong.{shown}"
    if images < 100:
        return "Nothing found in a few pictures says little: Audit Prompt Set makes hundreds."
    return "Nothing found is no proof: other prompts, seeds and thresholds may find something."
