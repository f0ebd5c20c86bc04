"""Audits of pictures made with the same prompts and seeds, side by side.

They are compared by rates, paired tests, classes and what changed.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from ..drawing.columns import among, cells, heads
from ..drawing.markdown import share, span, table
from ..options.words import amount
from .columns import COMPARED, PICTURES, known
from .pairing import SAME, Paired, paired
from .stats import holm, mcnemar, paired_interval


def compare(reports: Mapping[str, Mapping[str, Any]] | Paired) -> dict[str, Any]:
    """Two to six audit reports by name, compared picture by picture; JSON-ready.

    Pictures are paired as `paired` does it; those without a partner are in `unpaired`, and in no
    count. `pairs` has for every two audits how many pictures only one of them flagged, the
    difference of the rates with its 95 % interval (Bonett and Price 2012), the exact p of McNemar's
    test, and that p adjusted for the number of pairs (Holm 1979). Raises CompareError.
    """
    pairing = reports if isinstance(reports, Paired) else paired(reports)
    reports = pairing.reports
    names = list(reports)
    summaries = {name: report["summary"] for name, report in reports.items()}
    flags = {name: [image["flagged"] for image in reports[name]["images"]] for name in names}
    first = summaries[names[0]]
    pairs = [_pair(one, two, flags) for one, two in itertools.combinations(names, 2)]
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
        **{key: first[key] for key in (*SAME, "source", "unit")},
    }


def _pair(one: str, two: str, flags: Mapping[str, Sequence[bool]]) -> dict[str, Any]:
    both, only_first, only_second, neither = (
        sum(pair == wanted for pair in zip(flags[one], flags[two], strict=True))
        for wanted in ((True, True), (True, False), (False, True), (False, False))
    )
    total = both + only_first + only_second + neither
    low, high = paired_interval(only_first, only_second, total)
    return {
        "first": one,
        "second": two,
        "both": both,
        "only_first": only_first,
        "only_second": only_second,
        "neither": neither,
        "difference": (only_first - only_second) / total if total else 0.0,
        "difference_95": [round(low, 6), round(high, 6)],
        "p": mcnemar(only_first, only_second),
    }


def comparison_table(comparison: Mapping[str, Any]) -> str:
    """The comparison as Markdown: rates, pairs, classes, and what could not be paired."""
    audits = comparison["audits"]
    names = [each["name"] for each in audits]
    columns, pairs = among(PICTURES, COMPARED), map(_pair_row, comparison["pairs"])
    rates = [[each["name"], *cells(columns, each)] for each in audits]
    classes = [
        [label, *(by_name[name]["images"] for name in names)]
        for label, by_name in comparison["classes"].items()
    ]
    tested = ["difference", "interval", "McNemar p", "p (Holm)"]
    lines = [
        f"{amount(audits[0]['images'], 'picture')} each, preset {comparison['preset']},"
        f" {comparison['detector']} {comparison['detector_version']}. Intervals: 95 %.",
        "",
        *table(["audit", *heads(columns)], rates),
        "",
        *table(["pair", "only first", "only second", *tested], pairs),
        "",
        *table(["pictures with", *names], classes),
    ]
    alone = {name: found for name, found in comparison["unpaired"].items() if found}
    if alone:
        lines += ["", "Left out, since not every audit looked at them:", ""]
    lines += [
        f"- {amount(len(found), 'picture')} of {name} (first: {found[0]})"
        for name, found in alone.items()
    ]
    return "\n".join(lines)


def _pair_row(pair: Mapping[str, Any]) -> list[object]:
    return [
        f"{pair['first']} against {pair['second']}",
        *(pair[key] for key in ("only_first", "only_second")),
        share(pair["difference"], "+"),
        span(pair["difference_95"], "+"),
        f"{pair['p']:.3g}",
        f"{pair['p_holm']:.3g}",
    ]


def differing(count: int) -> str:
    """How many pictures have another verdict in another audit, in words."""
    if not count:
        return "no picture's verdict differs"
    return "1 picture differs" if count == 1 else f"{count} pictures differ"
