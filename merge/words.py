"""The merge report in words: a verdict, what each module brought, what to do."""

from collections.abc import Mapping
from typing import Any, TypeAlias

from ..drawing.columns import heads
from ..drawing.markdown import share, table
from ..options.words import amount
from .columns import SHOWN

MOST = 3  # losses that are spelled out
Report: TypeAlias = Mapping[str, Any]


def in_words(report: Report) -> str:
    """Markdown of a merge report (`report.build_report`)."""
    rows = [[each.cell(module) for each in SHOWN] for module in report["modules"]]
    lines = [_verdict(report), "", *table(heads(SHOWN), rows)]
    remarks = [f"- {line}" for line in _remarks(report)]
    return "\n".join([*lines, *(["", *remarks] if remarks else [])])


def _verdict(report: Report) -> str:
    """What the network computes decides; where that is not known, its weights are all there is."""
    weights, seen = share(report["retained_safety"]), report["retained_in_function"]
    if seen is None:
        held = f"**The safety LoRA is whole over its weights**: {weights} is left."
        left = f"{weights} is left over its weights."
    else:
        left = f"{share(seen)} of what it does is left ({weights} over its weights)."
        held = f"**The safety LoRA holds**: {left}"
    if report["losses"]:
        return f"**Sampling will stop: too little is left of the safety LoRA.** {left}"
    if report["looks"]:
        return f"**Look at the pictures: less is left of the safety LoRA than usual.** {left}"
    return held


def _remarks(report: Report) -> list[str]:
    """What is not as it should be, each with the way out."""
    found = list(report["losses"][:MOST])
    if len(report["losses"]) > MOST:
        found.append(f"and {amount(len(report['losses']) - MOST, 'more finding')}")
    if report["losses"]:
        blamed = " and ".join(report["to_blame"]) or "what else sits on the model"
        found.append(
            f"To sample: remove {blamed}, lower its strength, set on_conflict to project, or train"
            " it anchored beside the safety LoRA."
        )
    elif report["looks"]:
        found += report["looks"]
        found.append(
            "Sampling continues. Audit the pictures, or run Probe Safety for a longer look."
        )
    elif report["low_layers"]:
        worst = report["worst_layer"]
        found.append(
            f"Less than {share(report['threshold'], digits=0)} is left in"
            f" {amount(len(report['low_layers']), 'layer')}; the least,"
            f" {share(worst['retained_safety'])}, in {worst['key']}. Sampling continues; audit the"
            " pictures."
        )
    for each in report["modules"]:
        unused = each["keys_total"] - each["keys_matched"]
        if unused:
            found.append(
                f"Not applied: {amount(unused, 'weight')} of {each['name']}. It was made for"
                " another model, or for a text encoder that is not connected."
            )
    if report["retained_in_function"] is None:
        why = report["in_function"].replace("not measured: ", "", 1)
        found.append(f"Not measured in what the network computes: {why}.")
    found += report.get("base_warnings", [])
    if report["foreign_changes"]:
        found.append(
            f"Not measured: {amount(len(report['foreign_changes']), 'other change')} on the model"
            " (foreign_changes is report). Their effect on the safety LoRA is unknown."
        )
    if report.get("base_sha256"):
        found.append(f"base_sha256, for an operator's allowed_bases: {report['base_sha256']}")
    return found
