"""Audits of pictures made with the same prompts and seeds, side by side.

They are compared by rates, paired tests, classes and what changed.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from PIL import Image

from ..drawing.figures import ARMS, INK, new_figure, rendered, short, tidy, whiskers
from ..drawing.markdown import table
from ..options.words import amount
from .pairing import SAME, Paired, paired
from .stats import holm, mcnemar, paired_interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes


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
    kept = ("images", "flagged", "flagged_rate", "flagged_rate_95", "counted_detections")
    return {
        "audits": [{"name": name} | {key: summaries[name][key] for key in kept} for name in names],
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


def comparison_table(comparison: Mapping[str, Any]) -> str:
    """The comparison as Markdown: rates, pairs, classes, and what could not be paired."""
    audits = comparison["audits"]
    names = [each["name"] for each in audits]
    rates, pairs = map(_rate_row, audits), map(_pair_row, comparison["pairs"])
    classes = [
        [label, *(by_name[name]["images"] for name in names)]
        for label, by_name in comparison["classes"].items()
    ]
    tested = ["difference", "interval", "McNemar p", "p (Holm)"]
    lines = [
        f"{amount(audits[0]['images'], 'picture')} each, preset {comparison['preset']},"
        f" {comparison['detector']} {comparison['detector_version']}. Intervals: 95 %.",
        "",
        *table(["audit", "flagged", "rate", "Wilson interval", "counted detections"], rates),
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


def _rate_row(audit: Mapping[str, Any]) -> list[object]:
    return [
        *(audit[key] for key in ("name", "flagged")),
        f"{audit['flagged_rate']:.1%}",
        _range(audit["flagged_rate_95"]),
        audit["counted_detections"],
    ]


def _pair_row(pair: Mapping[str, Any]) -> list[object]:
    return [
        f"{pair['first']} against {pair['second']}",
        *(pair[key] for key in ("only_first", "only_second")),
        f"{pair['difference']:+.1%}",
        _range(pair["difference_95"], "+"),
        f"{pair['p']:.3g}",
        f"{pair['p_holm']:.3g}",
    ]


def _range(bounds: Sequence[float], sign: str = "") -> str:
    return " to ".join(f"{bound:{sign}.1%}" for bound in bounds)


def differing(count: int) -> str:
    """How many pictures have another verdict in another audit, in words."""
    if not count:
        return "no picture's verdict differs"
    return "1 picture differs" if count == 1 else f"{count} pictures differ"


def chart(comparison: Mapping[str, Any]) -> Image.Image:
    """Flagged rates with intervals, beside the pictures of each counted class; 1200 pixels wide."""
    audits, classes = comparison["audits"], _seen(comparison)
    figure = new_figure(12, max(4.4, 2.0 + 0.2 * len(audits) * (len(classes) + 1)))
    left, right = figure.subplots(1, 2, width_ratios=[2, 3])
    colours = [ARMS[place] for place in range(len(audits))]
    _flagged(left, audits, colours)
    if classes:
        _by_class(right, comparison, classes, colours)
        figure.legend(
            *right.get_legend_handles_labels(),
            loc="outside upper right",
            ncols=len(audits),
            frameon=False,
        )
    else:
        right.set_axis_off()
        right.text(0.5, 0.5, "No counted class in any picture", color=INK, ha="center")
    figure.supxlabel(
        f"preset {comparison['preset']}, {comparison['detector']} {comparison['detector_version']};"
        f" {differing(len(comparison['changed']))}",
        fontsize=9,
        color=INK,
    )
    return rendered(figure)


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


def _flagged(axes: Axes, audits: Sequence[Mapping[str, Any]], colours: Sequence[str]) -> None:
    rates = [each["flagged_rate"] for each in audits]
    style: dict[str, Any] = {"color": colours, "width": 0.6, "ecolor": INK, "capsize": 5}
    bounds = whiskers(rates, [each["flagged_rate_95"] for each in audits])
    axes.bar(range(len(audits)), rates, yerr=bounds, **style)
    for place, each in enumerate(audits):
        axes.annotate(
            f"{each['flagged']} of {each['images']}",
            (place, each["flagged_rate_95"][1]),
            (0, 4),
            textcoords="offset points",
            ha="center",
            color=INK,
        )
    axes.set_xticks(range(len(audits)), [_wrapped(each["name"]) for each in audits])
    axes.set_ylim(0, max(0.05, 1.15 * max(each["flagged_rate_95"][1] for each in audits)))
    axes.yaxis.set_major_formatter("{x:.0%}")
    tidy(axes, "Pictures flagged, 95 % Wilson intervals")


def _by_class(
    axes: Axes, comparison: Mapping[str, Any], classes: Sequence[str], colours: Sequence[str]
) -> None:
    audits = comparison["audits"]
    height = 0.8 / len(audits)
    for place, (each, colour) in enumerate(zip(audits, colours, strict=True)):
        values = [comparison["classes"][label][each["name"]]["images"] for label in classes]
        places = [row + (place - (len(audits) - 1) / 2) * height for row in range(len(classes))]
        # a label that begins with _ is left out by matplotlib
        label = short(each["name"])
        label = f" {label}" if label.startswith("_") else label
        bars = axes.barh(places, values, height=0.9 * height, color=colour, label=label)
        axes.bar_label(bars, padding=3, fontsize=8, color=INK)
    axes.set_yticks(range(len(classes)), [label.replace("_", " ").lower() for label in classes])
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.locator_params(axis="x", integer=True)
    tidy(axes, "Pictures by class")


def _seen(comparison: Mapping[str, Any]) -> list[str]:
    """The classes that were counted in at least one picture."""
    classes = comparison["classes"]
    return [
        label
        for label, by_name in classes.items()
        if any(each["images"] for each in by_name.values())
    ]


def _wrapped(name: str) -> str:
    return short(name) if len(name) < 12 else short(name).replace(" ", "\n")
