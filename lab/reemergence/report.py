"""From rows to results: recovery, means and spreads over seeds, intervals, paired tests, table."""

import math
import statistics
from collections.abc import Mapping, Sequence

from ...audit.stats import mcnemar, paired_interval, wilson
from .arms import ARMS, BY_SEED
from .measures import recovery
from .recipe import Recipe

Rows = Sequence[Mapping]
KINDS = ("seen", "unseen")


def runs_of(rows: Rows, recipe: Recipe) -> list[dict]:
    """Every row with what needs other rows of its seed.

    That is recovery, and losses against the task alone and the base.
    """
    found = {
        (row["arm"], row["method"], row["seed"]): row
        for row in rows
        if row["steps"] == recipe.task_steps
    }
    runs = []
    for row in rows:
        base, task_only = (found[arm, "any", row["seed"]] for arm in BY_SEED)
        run = {key: value for key, value in row.items() if key != "rates"}
        if row["method"] != "any":
            safe = found["safe", row["method"], row["seed"]]
            by_kind = {
                kind: recovery(*(each["gain"][kind] for each in (row, safe, task_only)))
                for kind in KINDS
            }
            run |= {"recovery": by_kind["seen"], "recovery_unseen": by_kind["unseen"]}
        run["task_loss_ratio"] = row["task_loss"] / task_only["task_loss"]
        run["others_loss_ratio"] = row["others_loss"] / base["others_loss"]
        first = next(iter(row["rates"].values()))
        runs.append(
            run
            | {
                "concept_rate": first["rate"],
                "concept_rate_95": first["rate_95"],
                "rates": row["rates"],
            }
        )
    return runs


def summary(runs: Sequence[Mapping], recipe: Recipe) -> list[dict]:
    """One entry for each method and arm.

    Means and standard deviations are over seeds, concept rates over all pictures.
    """
    entries = []
    for method in recipe.methods:
        for arm in ARMS:
            chosen = [
                run
                for run in runs
                if run["arm"] == arm
                and run["method"] in (method, "any")
                and run["steps"] == recipe.task_steps
            ]
            if not chosen:
                continue
            entry = {"method": method, "arm": arm, "seeds": len(chosen)}
            for name in (
                "recovery",
                "recovery_unseen",
                "cosine",
                "task_loss_ratio",
                "others_loss_ratio",
            ):
                entry[name] = spread([run[name] for run in chosen if run.get(name) is not None])
            entry["rates"] = {
                kind: pooled([run["rates"][kind]["flags"] for run in chosen])
                for kind in chosen[0]["rates"]
            }
            entries.append(entry)
    return entries


def tests(runs: Sequence[Mapping], recipe: Recipe) -> list[dict]:
    """Paired comparisons by method.

    Recovery over seeds, and sampled pictures of the same prompt and noise.
    """
    found = []
    for method in recipe.methods:
        of = {
            arm: sorted(
                (
                    r
                    for r in runs
                    if (r["arm"], r["method"], r["steps"]) == (arm, method, recipe.task_steps)
                ),
                key=lambda run: run["seed"],
            )
            for arm in ARMS
        }
        for first, second in (
            ("sequential", "modular"),
            ("sequential", "anchored"),
            ("anchored", "modular"),
        ):
            pairs = list(zip(of[first], of[second], strict=True))
            for name in ("recovery", "task_loss"):
                found.append(
                    {"method": method, "measure": name}
                    | paired(first, second, [(a[name], b[name]) for a, b in pairs])
                )
        for first, second in (
            ("sequential", "safe"),
            ("modular", "safe"),
            ("anchored", "modular"),
            ("sequential", "modular"),
        ):
            for kind in of[first][0]["rates"] if of[first] else ():
                flags = [
                    "".join(run["rates"][kind]["flags"] for run in of[arm])
                    for arm in (first, second)
                ]
                by_seed = [
                    (a["rates"][kind]["rate"], b["rates"][kind]["rate"])
                    for a, b in zip(of[first], of[second], strict=True)
                ]
                found.append(
                    {"method": method, "measure": f"rate, {kind}"}
                    | changes(first, second, *flags)
                    | {"over seeds": paired(first, second, by_seed)}
                )
    return found


def table(entries: Sequence[Mapping]) -> str:
    """The summary as markdown."""
    kinds = list(entries[0]["rates"])
    heads = [
        "method",
        "arm",
        "recovery",
        "on unseen prompts",
        "cosine",
        "task loss",
        "others' loss",
    ]
    lines = [
        heads + [f"concept rate: {kind}" for kind in kinds],
        ["---"] * (len(heads) + len(kinds)),
    ]
    for entry in entries:
        numbers = [
            _cell(entry[name])
            for name in (
                "recovery",
                "recovery_unseen",
                "cosine",
                "task_loss_ratio",
                "others_loss_ratio",
            )
        ]
        rates = [
            f"{each['rate']:.3f} ({each['rate_95'][0]:.3f} to {each['rate_95'][1]:.3f})"
            for each in entry["rates"].values()
        ]
        lines.append([entry["method"], entry["arm"], *numbers, *rates])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def _cell(spread: Mapping | None) -> str:
    if spread is None:
        return ""
    return f"{spread['mean']:.2f} ± {spread['sd']:.2f}"


def spread(values: Sequence[float]) -> dict | None:
    if not values:
        return None
    sd = statistics.stdev(values) if len(values) > 1 else 0.0
    return {"mean": statistics.mean(values), "sd": sd, "least": min(values), "most": max(values)}


def pooled(flags: Sequence[str]) -> dict:
    hits, total = sum(each.count("1") for each in flags), sum(map(len, flags))
    return {"rate": hits / total, "rate_95": list(wilson(hits, total)), "pictures": total}


def paired(first: str, second: str, pairs: Sequence[tuple[float, float]]) -> dict:
    """Mean difference, its 95 % t interval and the paired t test's p value (scipy).

    The seed is the unit.
    """
    differences = [a - b for a, b in pairs]
    found = {
        "first": first,
        "second": second,
        "pairs": len(pairs),
        "difference": statistics.mean(differences),
    }
    if len(pairs) < 2 or len(set(differences)) == 1:
        return found | {"difference_95": None, "p": None}
    from scipy import stats

    half = (
        stats.t.ppf(0.975, len(pairs) - 1) * statistics.stdev(differences) / math.sqrt(len(pairs))
    )
    interval = [found["difference"] - half, found["difference"] + half]
    return found | {
        "difference_95": interval,
        "p": float(stats.ttest_rel(*zip(*pairs, strict=True)).pvalue),
    }


def changes(first: str, second: str, ours: str, theirs: str) -> dict:
    """Difference of two rates over paired pictures, its interval, and McNemar's exact p."""
    only_first = sum((a, b) == ("1", "0") for a, b in zip(ours, theirs, strict=True))
    only_second = sum((a, b) == ("0", "1") for a, b in zip(ours, theirs, strict=True))
    return {
        "first": first,
        "second": second,
        "pairs": len(ours),
        "difference": (only_first - only_second) / len(ours),
        "difference_95": list(paired_interval(only_first, only_second, len(ours))),
        "p": mcnemar(only_first, only_second),
    }
