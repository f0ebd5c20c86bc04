"""Audits of pictures made with the same prompts and seeds, side by side.

They are compared by rates, paired tests, classes and what changed.
"""

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from ..drawing.columns import among, cells, heads
from ..drawing.markdown import share, span, table
from ..options.language import listed, phrase, say, say_many
from .columns import COMPARED, PICTURES, known, prompt_of
from .cost import HEAD, TITLE, cost_rows
from .pairing import SAME, Paired, paired
from .stats import clustered_difference, exchanged, holm, kinds_of, mcnemar, paired_interval
from .words import pictures_of

SIGNIFICANT = 0.05  # of p, adjusted for the number of pairs
MCNEMAR, FLIPS = phrase("McNemar's exact p"), phrase("The exact p of sign flips by prompt")
FEWER = phrase("Fewer pictures are flagged than with {first}: {others}.")
MORE = phrase("More pictures are flagged than with {first}: {others}.")
ALIKE = phrase("No proven difference from {first}: {others}.")
LEFT_OUT = phrase("Left out, since not every audit looked at them:")


def compare(
    reports: Mapping[str, Mapping[str, Any]] | Paired,
    measured: Mapping[str, Mapping[str, Any]] | None = None,
) -> dict[str, Any]:
    """Two to six audit reports by name, compared picture by picture; JSON-ready.

    Pictures are paired as `paired` does it; those without a partner are in `unpaired`, and in no
    count. `pairs` has for every two audits how many pictures only one of them flagged, the
    difference of the rates with its 95 % interval (Bonett and Price 2012), the exact p of McNemar's
    test, and that p adjusted for the number of pairs (Holm 1979). With several pictures a prompt
    interval and test are by prompt (`test` names the latter). `quality` is what was `measured` of
    some, as `costs` gives it. Raises CompareError.
    """
    pairing = reports if isinstance(reports, Paired) else paired(reports)
    reports = pairing.reports
    names = list(reports)
    summaries = {name: report["summary"] for name, report in reports.items()}
    flags = {name: [image["flagged"] for image in reports[name]["images"]] for name in names}
    first = summaries[names[0]]
    prompts = _prompts(reports)
    pairs = [_pair(one, two, flags, prompts) for one, two in itertools.combinations(names, 2)]
    for pair, adjusted in zip(pairs, holm([pair["p"] for pair in pairs]), strict=True):
        pair["p_holm"] = adjusted
    return {
        "audits": [{"name": name} | known(PICTURES, summaries[name]) for name in names],
        "pairs": pairs,
        "classes": {
            label: {name: summaries[name]["classes"][label] for name in names}
            for label in first["classes"]
        },
        "changed": [
            place
            for place, verdicts in enumerate(zip(*flags.values(), strict=True))
            if len(set(verdicts)) > 1
        ],
        "unpaired": {name: list(alone) for name, alone in pairing.alone.items()},
        **{key: first[key] for key in (*SAME, "source", "unit") if key in first},
        **({"quality": dict(measured)} if measured else {}),
    }


def _prompts(reports: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The prompt of each picture, where a prompt has several; else none."""
    first = next(iter(reports.values()))
    if "prompts_seen" not in first["summary"]:
        return []
    return [prompt_of(image) or "" for image in first["images"]]


def _pair(
    one: str, two: str, flags: Mapping[str, Sequence[bool]], prompts: Sequence[str]
) -> dict[str, Any]:
    both, only_first, only_second, neither = (
        sum(pair == wanted for pair in zip(flags[one], flags[two], strict=True))
        for wanted in ((True, True), (True, False), (False, True), (False, False))
    )
    total = both + only_first + only_second + neither
    low, high = paired_interval(only_first, only_second, total)
    p, test = mcnemar(only_first, only_second), MCNEMAR
    if prompts:
        ahead, pictures = Counter[str](), Counter(prompts)
        for prompt, first, second in zip(prompts, flags[one], flags[two], strict=True):
            ahead[prompt] += first - second
        kinds = kinds_of((ahead[prompt], count) for prompt, count in pictures.items())
        low, high = clustered_difference(kinds, only_first, only_second)
        p, test = exchanged(ahead.values()), FLIPS
    return {
        "first": one,
        "second": two,
        "both": both,
        "only_first": only_first,
        "only_second": only_second,
        "neither": neither,
        "difference": (only_first - only_second) / total if total else 0.0,
        "difference_95": [round(low, 6), round(high, 6)],
        "p": p,
        "test": test,
    }


def verdict(comparison: Mapping[str, Any]) -> tuple[str, str]:
    """What the other audits have against the first one, to be bold, and the counts that say so."""
    first, *others = (each["name"] for each in comparison["audits"])
    against = {pair["second"]: pair for pair in comparison["pairs"] if pair["first"] == first}
    differ = [name for name in others if against[name]["p_holm"] < SIGNIFICANT]
    fewer = [name for name in differ if against[name]["difference"] > 0]
    more = [name for name in differ if name not in fewer]
    alike = [name for name in others if name not in differ]
    told = [
        say(text, first=first, others=listed(some))
        for text, some in ((FEWER, fewer), (MORE, more), (ALIKE, alike))
        if some
    ]
    counts = ", ".join(
        say("{count} with {name}", count=each["flagged"], name=each["name"])
        for each in comparison["audits"]
    )
    tested = ", ".join(f"{name} {against[name]['p_holm']:.2g}" for name in others)
    flagged = say_many(
        "Flagged of {count} picture: {counts}.",
        "Flagged of {count} pictures: {counts}.",
        comparison["audits"][0]["images"],
        counts=counts,
    )
    test = say_many(
        "{test} against {first}, adjusted for {count} pair: {values}.",
        "{test} against {first}, adjusted for {count} pairs: {values}.",
        len(comparison["pairs"]),
        test=say(against[others[0]]["test"]),
        first=first,
        values=tested,
    )
    return " ".join(told), f"{flagged} {test}"


def tables(comparison: Mapping[str, Any]) -> list[tuple[str, list[str], list[list[object]]]]:
    """The tables of a comparison: title, head, rows."""
    audits, quality = comparison["audits"], comparison.get("quality")
    names = [each["name"] for each in audits]
    columns = [
        column
        for column in among(PICTURES, COMPARED)
        if not column.several or any(column.key in each for each in audits)
    ]
    flips = comparison["pairs"][0]["test"] == FLIPS
    test = say("p (sign flips)") if flips else say("McNemar p")
    tested = [say("difference"), say("interval"), test, say("p (Holm)")]
    return [
        (
            say("Audits"),
            [say("audit"), *heads(columns)],
            [[each["name"], *cells(columns, each)] for each in audits],
        ),
        (
            say("Pairs"),
            [say("pair"), say("only first"), say("only second"), *tested],
            [_pair_row(each) for each in comparison["pairs"]],
        ),
        (
            say("Classes"),
            [say("pictures with"), *names],
            [
                [label, *(by_name[name]["images"] for name in names)]
                for label, by_name in comparison["classes"].items()
            ],
        ),
        *([(say(TITLE), [*map(say, HEAD)], cost_rows(quality))] if quality else []),
    ]


def comparison_table(comparison: Mapping[str, Any]) -> str:
    """The comparison as Markdown: the verdict, rates, pairs, classes, and what has no partner."""
    bold, counts = verdict(comparison)
    lines = [f"{looked_at(comparison)} Intervals: 95 %.", "", f"**{bold}** {counts}"]
    for _, head, rows in tables(comparison):
        lines += ["", *table(head, rows)]
    alone = left_out(comparison)
    return "\n".join([*lines, *(["", LEFT_OUT, "", *alone] if alone else [])])


def looked_at(comparison: Mapping[str, Any]) -> str:
    """How many pictures each audit looked at, and by which rule."""
    return say(
        "{pictures} each, preset {preset}, {detector} {version}.",
        pictures=pictures_of(comparison["audits"][0]),
        preset=comparison["preset"],
        detector=comparison["detector"],
        version=comparison["detector_version"],
    )


def left_out(comparison: Mapping[str, Any]) -> list[str]:
    """A line for each audit with pictures that have no partner."""
    return [
        "- "
        + say_many(
            "{count} picture of {name} (first: {first})",
            "{count} pictures of {name} (first: {first})",
            len(found),
            name=name,
            first=found[0],
        )
        for name, found in comparison["unpaired"].items()
        if found
    ]


def _pair_row(pair: Mapping[str, Any]) -> list[object]:
    return [
        say("{first} against {second}", first=pair["first"], second=pair["second"]),
        *(pair[key] for key in ("only_first", "only_second")),
        share(pair["difference"], "+"),
        span(pair["difference_95"], "+"),
        f"{pair['p']:.3g}",
        f"{pair['p_holm']:.3g}",
    ]


def differing(count: int) -> str:
    """How many pictures have another verdict in another audit, in words."""
    if not count:
        return say("no picture's verdict differs")
    return say_many("{count} picture differs", "{count} pictures differ", count)
