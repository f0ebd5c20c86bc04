"""An audit's report in words: a verdict, what was found, what to do."""

from collections.abc import Mapping, Sequence
from typing import Any

from ..drawing.columns import among, cells, heads
from ..drawing.markdown import share, span, table
from ..options.language import phrase, phrase_many, say, say_many
from ..options.words import amount
from .about import STATES, in_a_line
from .columns import CLASSES, WORDS, counted
from .film_reader import clock

NONE = {
    "picture": phrase("No picture was looked at"),
    "frame": "No frame was looked at",  # of the node alone, which is English
}
FLAGGED = {
    "picture": phrase_many(
        "{flagged} of {count} picture flagged", "{flagged} of {count} pictures flagged"
    ),
    "frame": ("{flagged} of {count} frame flagged", "{flagged} of {count} frames flagged"),
}


def in_words(
    summary: Mapping[str, Any],
    action: str = "none",
    beside: Sequence[str] = (),
    about: Mapping[str, Any] | None = None,
) -> str:
    """Markdown of an audit's summary (`report.Tally`).

    `action` is what was done to pictures, `beside` what locks found while they were sampled,
    `about` what is known of the model that made them: it comes first.
    """
    made_by = in_a_line(about) if about else ""
    beside = [*([STATES[about["safety_lora"]]] if about else []), *beside]
    words = "\n".join(_lines(summary, action, beside))
    return f"{made_by}\n\n{words}" if made_by else words


def verdict(summary: Mapping[str, Any], what: str = "picture") -> tuple[str, str]:
    """What an audit found, in bold and not: pictures, detector, rate with its interval."""
    by = {"detector": summary["detector"], "preset": summary["preset"]}
    if not summary["images"]:
        said = say("by {detector}, preset {preset}. That says nothing of any.", **by)
        return say(NONE[what]), said
    bold = say_many(*FLAGGED[what], summary["images"], flagged=summary["flagged"] or say("None"))
    told = [
        say("by {detector}, preset {preset}.", **by),
        say(
            "The rate is {rate}; with {pictures} it may lie anywhere from {interval}.",
            rate=share(summary["flagged_rate"]),
            pictures=pictures_of(summary, what),
            interval=span(summary["flagged_rate_95"]),
        ),
    ]
    if "prompts_seen" in summary:
        prompts = say_many(
            "{flagged} of {count} prompt gave a flagged picture: {rate} ({interval}).",
            "{flagged} of {count} prompts gave a flagged picture: {rate} ({interval}).",
            summary["prompts_seen"],
            flagged=summary["prompts_flagged"] or say("None"),
            rate=share(summary["prompt_rate"]),
            interval=span(summary["prompt_rate_95"]),
        )
        told.append(prompts)
    return bold, " ".join(told)


def pictures_of(summary: Mapping[str, Any], what: str = "picture") -> str:
    """How many pictures, and of how many prompts where a prompt has several."""
    pictures = amount(summary["images"], what)
    if "prompts_seen" not in summary:
        return pictures
    return say("{part} of {whole}", part=pictures, whole=amount(summary["prompts_seen"], "prompt"))


def _lines(summary: Mapping[str, Any], action: str, beside: Sequence[str]) -> list[str]:
    """The verdict, the classes, and what to do."""
    images, flagged = summary["images"], summary["flagged"]
    bold, rest = verdict(summary)
    lines = [f"**{bold}** {rest}"]
    found = {name: each for name, each in summary["classes"].items() if each["count"]}
    if found:
        columns = among(CLASSES, WORDS)
        rows = [
            [name, f"{summary['thresholds'][name]:g}", *cells(columns, each)]
            for name, each in found.items()
        ]
        lines += ["", *table(["class", "counts from", *heads(columns)], rows)]
    asked = summary.get("asked")
    if asked:
        lines += ["", _asked(asked, summary)]
    second = summary.get("second_opinion")
    if second:
        lines += [
            "",
            f"The second opinion ({second['preset']}) agrees on {share(second['agreement'])} of the"
            f" pictures; {second['only_second']} it alone flags.",
        ]
    protocol = summary.get("protocol", {}).get("said", ())
    remarks = [*protocol, *beside, _next(flagged, images, action)]
    return [*lines, "", *(f"- {line}" for line in remarks)]


def film_in_words(summary: Mapping[str, Any], action: str, beside: Sequence[str] = ()) -> str:
    """Markdown of a video's audit: what was found, when, and what was done."""
    bold, rest = verdict(summary, "frame")
    lines = [f"**{bold}** {rest}"]
    if summary["flagged"]:
        lines += ["", f"Flagged at {times(summary['flagged_at'])}."]
    if summary.get("asked"):
        lines += ["", _asked(summary["asked"], summary)]
    done = f" It went on changed ({action})." if action != "none" and summary["flagged"] else ""
    remarks = [*beside, f"Only these frames were looked at, of {clock(summary['seconds'])}.{done}"]
    return "\n".join([*lines, "", *(f"- {line}" for line in remarks)])


def times(spans: Sequence[Sequence[float]], most: int = 20) -> str:
    """From when to when, for people: `0:03-0:05, 0:09.8`."""
    told = [
        clock(first) if first == last else f"{clock(first)}-{clock(last)}"
        for first, last in spans[:most]
    ]
    return ", ".join([*told, "..."] if len(spans) > most else told)


def _asked(asked: Mapping[str, Any], summary: Mapping[str, Any]) -> str:
    """How often a preset's second detector decided, and how far the two agree there."""
    looked = amount(summary["images"], "picture")
    told = f"{asked['detector']} was asked about {asked['pictures']} of {looked}"
    agreed = f", and agrees on {share(asked['agreement'])} of them" if asked["pictures"] else ""
    return f"{told}, where {summary['detector']} was unsure{agreed}."


def stopped(report: Mapping[str, Any]) -> str:
    """A sentence for a prompt that an audit ends: what was found, what to do, the first picture."""
    summary = report["summary"]
    said = f"Nudity Audit stopped this prompt: {summary['verdict']} ({summary['preset']})."
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
