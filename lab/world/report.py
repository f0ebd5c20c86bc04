"""From rows to results: rates over all pictures, means over seeds, paired differences, tables."""

from collections.abc import Mapping, Sequence

from ...experiment import arms
from ...experiment.arms import PAIRS
from ...options.words import amount
from .emergence import ARMS, arms_of
from .recipe import HARM, Recipe
from .statistics import changes, paired, pooled, spread

Rows = Sequence[Mapping]
MEANS = {
    "task_loss_ratio": "held-out task loss",
    "right_style": "right style",
    "right_name_in_style": "right name in it",
    "others_loss_ratio": "others' loss",
    "right_name": "right name",
    "right_tool": "right tool",
    "cosine": "cosine",
}
SAID = {arm.name: arm.title for arm in arms.ARMS}
TITLES = {
    "esd-x": "ESD-x",
    "esd-x-retained": "ESD-x, far names held",
    "surrogate": "Surrogate",
    "surrogate-text": "Surrogate, the text's layers",
}
LOSSES = {"task_loss": "task_only", "others_loss": "base"}  # beside whose they are told
ALL = "all"  # of the prompts for weapons


def flags_of(row: Mapping, kind: str) -> str:
    return "".join(row["flags"].values()) if kind == ALL else row["flags"][kind]


def of_arm(rows: Rows, arm: str, method: str) -> list[Mapping]:
    """The rows of an arm by seed; its losses beside task_only's and the base's where they are."""
    alone = {(row["arm"], row["seed"]): row for row in rows if row["method"] == "any"}
    chosen = [row for row in rows if row["arm"] == arm and row["method"] in (method, "any")]
    found = []
    for row in sorted(chosen, key=lambda row: row["seed"]):
        own = {}
        for loss, peer in LOSSES.items():
            if loss in row and (peer, row["seed"]) in alone:
                own[f"{loss}_ratio"] = row[loss] / alone[peer, row["seed"]][loss]
        found.append(row | own)
    return found


def summary(rows: Rows, told: Recipe) -> list[dict]:
    """One entry for each method and arm."""
    entries = []
    for method in told.safety:
        for arm in arms_of(told):
            chosen = of_arm(rows, arm, method)
            entry = {"method": method, "arm": arm, "seeds": len(chosen)}
            entry["rates"] = {
                kind: pooled([flags_of(row, kind) for row in chosen]) for kind in (*HARM, ALL)
            }
            entry |= {name: spread([row[name] for row in chosen if name in row]) for name in MEANS}
            entry["lock_refuses"] = sum(row.get("lock_refuses", False) for row in chosen)
            entries.append(entry)
    return entries


def tests(rows: Rows, told: Recipe) -> list[dict]:
    """Differences of the rates of two arms: over seeds, and over pictures of the same noise."""
    found = []
    for method in told.safety:
        for first, second in PAIRS:
            if first in told.without:
                continue
            both = _of_same_seeds(*(of_arm(rows, arm, method) for arm in (first, second)))
            for kind in (*HARM, ALL):
                flags = [[flags_of(row, kind) for row in chosen] for chosen in both]
                rates = [[each.count("1") / len(each) for each in some] for some in flags]
                over_seeds = paired(first, second, list(zip(*rates, strict=True)))
                found.append(
                    {"method": method, "prompts": kind}
                    | over_seeds
                    | {"over pictures": changes(first, second, *map("".join, flags))}
                )
    return found


def _of_same_seeds(first: Rows, second: Rows) -> tuple[Rows, Rows]:
    seeds = {row["seed"] for row in first} & {row["seed"] for row in second}
    kept = ([row for row in rows if row["seed"] in seeds] for rows in (first, second))
    return next(kept), next(kept)


def short(entries: Sequence[Mapping], tests: Sequence[Mapping]) -> str:
    """What matters most of the summary and of the differences, as Markdown."""
    of = {(each["arm"], each["method"]): each for each in entries}
    methods = list(dict.fromkeys(method for _, method in of))
    head = [""]
    for method in methods:
        head += [f"{TITLES.get(method, method)}: weapons drawn", "names right", "tools right"]
        head += ["style right", "stopped by the lock"]
    lines = [head, ["---"] * len(head)]
    unlike = len({each["seeds"] for each in entries}) > 1
    for arm in [arm for arm in ARMS if (arm, methods[0]) in of]:
        found = [of[arm, method] for method in methods]
        title = SAID[arm] + (f" ({amount(found[0]['seeds'], 'seed')})" if unlike else "")
        lines.append([title, *(cell for each in found for cell in _told(each))])
    return _markdown(lines) + ("\n" + _differences(tests, methods) if tests else "")


def _told(entry: Mapping) -> list[str]:
    means = (entry["right_name"], entry["right_tool"], entry["right_style"])
    shares = [entry["rates"][ALL]["rate"], *(each and each["mean"] for each in means)]
    told = ["" if each is None else f"{100 * each:.0f} %" for each in shares]
    return [*told, _stopped(entry) if entry["cosine"] else ""]


def _stopped(entry: Mapping) -> str:
    """How many of the seeds' models the lock stops."""
    return f"{entry['lock_refuses']} of {entry['seeds']}"


def _differences(tests: Sequence[Mapping], methods: Sequence[str]) -> str:
    of = {(each["first"], each["method"]): each for each in tests if each["prompts"] == ALL}
    lines = [
        ["difference, points, 95 % over seeds", *(TITLES.get(method, method) for method in methods)]
    ]
    lines.append(["---"] * len(lines[0]))
    for first, second in [pair for pair in PAIRS if (pair[0], methods[0]) in of]:
        found = [of[first, method] for method in methods]
        lines.append([f"{SAID[first]} minus {SAID[second]}", *map(_points, found)])
    return _markdown(lines)


def _points(test: Mapping) -> str:
    """A difference in points, with its 95 % interval over seeds."""
    ends = _interval(test)
    return f"{round(100 * test['difference'])}" + (f" ({ends})" if ends else "")


def _interval(test: Mapping) -> str:
    ends = test["difference_95"]
    return " to ".join(str(round(100 * end)) for end in ends) if ends else ""


def _markdown(lines: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def table(entries: Sequence[Mapping]) -> str:
    """The summary as Markdown."""
    kinds = list(entries[0]["rates"])
    head = ["safety LoRA", "model", *(f"flagged: {kind}" for kind in kinds), *MEANS.values()]
    lines = [[*head, "stopped by the lock"], ["---"] * (len(head) + 1)]
    for entry in entries:
        rates = [
            f"{each['rate']:.0%} ({each['rate_95'][0]:.0%} to {each['rate_95'][1]:.0%})"
            for each in entry["rates"].values()
        ]
        means = [_cell(entry[name]) for name in MEANS]
        lines.append([entry["method"], entry["arm"], *rates, *means, _stopped(entry)])
    return _markdown(lines)


def verdicts(tests: Sequence[Mapping]) -> str:
    """The paired differences as Markdown."""
    lines = [["safety LoRA", "difference", "prompts", "points", "95 % over seeds"], ["---"] * 5]
    for each in tests:
        pair = f"{each['first']} minus {each['second']}"
        points = str(round(100 * each["difference"]))
        lines.append([each["method"], pair, each["prompts"], points, _interval(each)])
    return _markdown(lines)


def _cell(found: Mapping | None) -> str:
    return "" if found is None else f"{found['mean']:.2f} ± {found['sd']:.2f}"
