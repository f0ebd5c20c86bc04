"""What an experiment came to: rates of every arm over its repetitions, differences, files."""

import dataclasses
import datetime
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from ..audit.report import as_text
from ..storage.whole import write_picture, write_text
from .arms import BY_NAME, PAIRS, Arm
from .chart import chart
from .job import Experiment
from .learning import Learner
from .page import page
from .reading import Found, found
from .statistics import Cell, difference, rate
from .words import in_words

Json = dict[str, Any]
ByArm = Mapping[str, Sequence[Found]]


def write_results(learner: Learner) -> Json:
    """Write report.json, table.md, chart.png and report.html of what is there; the report."""
    experiment = learner.experiment
    there = found_of(learner)
    report = report_of(there, experiment) | {
        "base": {"name": learner.base_name, "sha256": learner.base_sha256}
    }
    folder = experiment.folder
    picture = chart(report)
    write_text(folder / "report.json", as_text(report))
    write_text(folder / "table.md", in_words(report) + "\n")
    write_picture(folder / "chart.png", picture)
    write_text(folder / "report.html", page(report, there, experiment))
    return report


def found_of(learner: Learner) -> dict[str, list[Found]]:
    """Every arm's repetitions; an arm that all of them share is there once, as of seed 0."""
    experiment, by_arm = learner.experiment, {}
    for arm in experiment.arms:
        if experiment.is_shared(arm):
            by_arm[arm.name] = [dataclasses.replace(found(learner, arm, 1), seed=0)]
        else:
            by_arm[arm.name] = [found(learner, arm, seed) for seed in experiment.seeds]
    return by_arm


def report_of(there: ByArm, experiment: Experiment) -> Json:
    """The report of what there is, JSON-ready."""
    arms = [_arm(BY_NAME[name], some, experiment) for name, some in there.items()]
    pairs = [pair for pair in (*PAIRS, ("safe", "base")) if set(pair) <= there.keys()]
    return {
        "date": datetime.date.today().isoformat(),
        "unfinished": [
            f"{arm['title']}{f', seed {seed}' if seed else ''}: {why}"
            for arm in arms
            for seed, why in arm["missing"].items()
        ],
        "arms": arms,
        "differences": [
            {"first": one, "second": two, "kind": kind} | _difference(there[one], there[two], kind)
            for one, two in pairs
            for kind in experiment.sets
        ],
        "preset": experiment.rules.preset.name,
        "safety": [{"name": each.name, "sha256": each.sha256} for each in experiment.given],
        "asked": asdict(experiment.asked),
        "task": asdict(experiment.task),
        "pictures": {
            "count": len(experiment.pictures.pictures),
            "sha256": experiment.pictures.sha256,
            "warnings": list(experiment.pictures.warnings),
        },
        "prompts": {
            kind: {
                "file": prompts.file,
                "sha256": prompts.sha256,
                "pictures": len(prompts),
                "prompts": len({each.text for each in prompts}),
            }
            for kind, prompts in experiment.sets.items()
        },
        "sampling": asdict(experiment.sampling),
    }


def _arm(arm: Arm, some: Sequence[Found], experiment: Experiment) -> Json:
    """One arm: its repetitions that are whole, and what is missing of the others."""
    whole = [each for each in some if not each.missing]
    said = [each.merge for each in whole if each.merge is not None]
    return {
        "arm": arm.name,
        "title": arm.title,
        "seeds": [each.seed for each in whole if each.seed],
        "missing": {each.seed: each.missing for each in some if each.missing},
        "not_made": [why for each in whole for why in each.not_made],
        "by_seed": {kind: [_share(each, kind) for each in whole] for kind in experiment.sets},
        "rates": {kind: rate(cells(whole, kind)) for kind in experiment.sets},
        "by_group": _by_group(whole, experiment),
        "stopped": sum(bool(each["losses"]) for each in said) if said else None,
        "merges": len(said),
        "retained_safety": [each["retained_safety"] for each in said],
    }


def _share(each: Found, kind: str) -> float | None:
    flags = [row["flagged"] for row in each.rows[kind].values()]
    return sum(flags) / len(flags) if flags else None


def _by_group(whole: Sequence[Found], experiment: Experiment) -> Json:
    """The rates by the categories of the prompts."""
    told = Counter(
        name for prompts in experiment.sets.values() for each in prompts for name in each.categories
    )
    return {
        name: rate([cell for kind in experiment.sets for cell in cells(whole, kind, name)])
        for name in told
    }


def cells(
    some: Sequence[Found],
    kind: str,
    category: str = "",
) -> list[Cell]:
    """Every picture of some repetitions, or those of a category of prompts."""
    return [
        Cell(each.seed, row["prompt"], float(row["flagged"]))
        for each in some
        for row in each.rows[kind].values()
        if not category or category in row["groups"]
    ]


def _difference(first: Sequence[Found], second: Sequence[Found], kind: str) -> Json:
    """First minus second, picture by picture: of one repetition, or beside what all share."""
    of = {each.seed: each for each in second if not each.missing}
    pairs = []
    for each in first:
        other = of.get(0) or of.get(each.seed)
        if each.missing or other is None:
            continue
        for key, row in each.rows[kind].items():
            if key in other.rows[kind]:
                value = float(row["flagged"]) - float(other.rows[kind][key]["flagged"])
                pairs.append(Cell(each.seed, row["prompt"], value))
    return difference(pairs)
