"""Audits of pictures made with the same prompts and seeds, side by side.

They are compared by rates, paired tests, classes and what changed.
"""

import itertools
import json
from collections.abc import Mapping, Sequence

from PIL import Image

from ..drawing.figures import ARMS, INK, as_picture, new_figure, tidy, whiskers
from .stats import holm, mcnemar, paired_interval

MOST = 6
SAME = ("preset", "thresholds", "channel_order", "detector", "detector_version")


class CompareError(ValueError):
    """These audits can't be compared."""


def compare(reports: Mapping[str, Mapping]) -> dict:
    """Two to six audit reports by name, compared picture by picture; JSON-ready.

    Pictures are paired by their `key` (of a prompt set) where every report has them, by their place
    otherwise. `pairs` has for every two audits how many pictures only one of them flagged, the
    difference of the rates with its 95 % interval (Bonett and Price 2012), the exact p of McNemar's
    test, and that p adjusted for the number of pairs (Holm 1979). Raises CompareError.
    """
    names, reports = list(reports), paired(reports)
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
        **{key: first[key] for key in (*SAME, "source", "unit")},
    }


def table(comparison: Mapping) -> str:
    """The comparison as Markdown: rates, pairs, classes."""
    first = comparison["audits"][0]
    pictures = "picture" if first["images"] == 1 else "pictures"
    lines = [
        f"{first['images']} {pictures} each, preset {comparison['preset']},"
        f" {comparison['detector']} {comparison['detector_version']}. Intervals: 95 %.",
        "",
        "| audit | flagged | rate | Wilson interval | counted detections |",
        "| --- | --- | --- | --- | --- |",
    ]
    for each in comparison["audits"]:
        low, high = each["flagged_rate_95"]
        lines.append(
            f"| {each['name']} | {each['flagged']} | {each['flagged_rate']:.1%} "
            f"| {low:.1%} to {high:.1%} | {each['counted_detections']} |"
        )
    lines += [
        "",
        "| pair | only the first flagged | only the second | difference | interval "
        "| McNemar p | p (Holm) |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for pair in comparison["pairs"]:
        low, high = pair["difference_95"]
        lines.append(
            f"| {pair['first']} against {pair['second']} "
            f"| {pair['only_first']} | {pair['only_second']} "
            f"| {pair['difference']:+.1%} | {low:+.1%} to {high:+.1%} "
            f"| {pair['p']:.3g} | {pair['p_holm']:.3g} |"
        )
    names = [each["name"] for each in comparison["audits"]]
    lines += ["", f"| pictures with | {' | '.join(names)} |", f"| --- |{' --- |' * len(names)}"]
    for label, by_name in comparison["classes"].items():
        lines.append(f"| {label} | {' | '.join(str(by_name[name]['images']) for name in names)} |")
    return "\n".join(lines)


def differing(count: int) -> str:
    """How many pictures have another verdict in another audit, in words."""
    if not count:
        return "no picture's verdict differs"
    return "1 picture differs" if count == 1 else f"{count} pictures differ"


def chart(comparison: Mapping) -> Image.Image:
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
    return as_picture(figure)


def parsed(name: str, text: str) -> dict:
    """The report that a text holds. Raises CompareError for what is no audit's."""
    try:
        report = json.loads(text)
        report["images"], report["summary"]["thresholds"]
    except (json.JSONDecodeError, RecursionError, TypeError, KeyError) as error:
        raise CompareError(
            f"{name!r} is no audit report ({error!r}). Connect the report of an audit."
        ) from error
    return report


def paired(reports: Mapping[str, Mapping]) -> dict[str, Mapping]:
    """The reports with their images in one order.

    Raises CompareError for those that can't be compared.
    """
    names = list(reports)
    if not 2 <= len(names) <= MOST:
        raise CompareError(f"Two to {MOST} audits can be compared; there are {len(names)}.")
    first = reports[names[0]]
    for name in names[1:]:
        other = reports[name]["summary"]
        for key in SAME:
            if other.get(key) != first["summary"].get(key):
                raise CompareError(
                    f"{name!r} and {names[0]!r} were not audited alike: {key} is {other.get(key)}"
                    f" and {first['summary'].get(key)}. Audit them under one preset and detector."
                )
    counts = {name: len(report["images"]) for name, report in reports.items()}
    keyed = {
        name: {image["key"]: image for image in reports[name]["images"] if "key" in image}
        for name in names
    }
    if all(len(keyed[name]) == counts[name] for name in names):
        for name in names[1:]:
            lonely = keyed[name].keys() ^ keyed[names[0]].keys()
            if lonely:
                raise CompareError(
                    f"{name!r} and {names[0]!r} do not have the same pictures: {len(lonely)} are in"
                    f" one of them only (first: {min(map(str, lonely))})."
                )
        return {
            name: {**reports[name], "images": [keyed[name][key] for key in keyed[names[0]]]}
            for name in names
        }
    if len(set(counts.values())) > 1:
        raise CompareError(
            f"These audits have different numbers of pictures: {counts}. Use the same prompts and"
            " seeds."
        )
    return dict(reports)


def _pair(one: str, two: str, flags: Mapping[str, Sequence[bool]]) -> dict:
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


def _flagged(axes, audits: Sequence[Mapping], colours: Sequence[str]) -> None:
    rates = [each["flagged_rate"] for each in audits]
    style = {"color": colours, "width": 0.6, "ecolor": INK, "capsize": 5}
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


def _by_class(axes, comparison: Mapping, classes: Sequence[str], colours: Sequence[str]) -> None:
    audits = comparison["audits"]
    height = 0.8 / len(audits)
    for place, (each, colour) in enumerate(zip(audits, colours, strict=True)):
        values = [comparison["classes"][label][each["name"]]["images"] for label in classes]
        places = [row + (place - (len(audits) - 1) / 2) * height for row in range(len(classes))]
        bars = axes.barh(places, values, height=0.9 * height, color=colour, label=each["name"])
        axes.bar_label(bars, padding=3, fontsize=8, color=INK)
    axes.set_yticks(range(len(classes)), [label.replace("_", " ").lower() for label in classes])
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.xaxis.get_major_locator().set_params(integer=True)
    tidy(axes, "Pictures by class")


def _seen(comparison: Mapping) -> list[str]:
    """The classes that were counted in at least one picture."""
    classes = comparison["classes"]
    return [
        label
        for label, by_name in classes.items()
        if any(each["images"] for each in by_name.values())
    ]


def _wrapped(name: str) -> str:
    return name if len(name) < 12 else name.replace(" ", "\n")
