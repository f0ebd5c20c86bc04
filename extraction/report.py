"""What an extraction kept, by the kind of layer and in all, for JSON and in words."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from ..drawing.markdown import table
from ..function.limits import DEFAULT
from ..host.structure import OTHER
from ..options.words import amount
from .change import Difference
from .loaded import NETWORK, Loaded

Json: TypeAlias = dict[str, Any]
TEXT_ENCODER, NORMS = "text encoder", "norms"
ROUNDED = 0.5  # of a change's square that rounding explains: more of it is noise than not
HEAD = ("layers", "weights", "change", "kept", "ranks")


def report_of(
    differences: Mapping[str, Difference], roles: Mapping[str, str], base: Loaded
) -> Json:
    """JSON-ready: `weights` that differ and there are, `kept` in all, and `kinds` of layers.

    A kind has its `weights`, its `change` as a share of the weights' size, the share `kept` of the
    change's square, and the `ranks`, the least, the middle and the largest; none where all of it is
    kept as full differences. `rounding` is the share of the change that rounding makes.
    """
    kinds: dict[str, list[Difference]] = defaultdict(list)
    for key, each in differences.items():
        kinds[_kind(key, roles, base)].append(each)
    every = list(differences.values())
    noisy = [each for each in every if each.rounding > ROUNDED * each.square]
    of_both = not all(key.startswith(NETWORK) for key in differences)
    there = len(base.patched if of_both else base.network)
    return {
        "weights": {"changed": len(every), "of": there},
        **_of(every),
        "kinds": {kind: _of(some) | {"weights": len(some)} for kind, some in kinds.items()},
        "rounding": _share(sum(each.rounding for each in every), every),
        "noisy": len(noisy),
    }


def _kind(key: str, roles: Mapping[str, str], base: Loaded) -> str:
    if not key.startswith(NETWORK):
        return TEXT_ENCODER
    layer = key.removeprefix(NETWORK).rpartition(".")[0]
    return roles.get(layer, NORMS if len(base.sizes[key]) < 2 else OTHER)


def _of(some: Sequence[Difference]) -> Json:
    if not some:
        return {"change": None, "kept": None, "ranks": None}
    square = math.fsum(each.square for each in some)
    ranks = sorted(each.rank for each in some if each.rank)
    return {
        "change": _number(math.sqrt(square / math.fsum(each.base for each in some)))
        if any(each.base for each in some)
        else None,
        "kept": _number(1.0 - math.fsum(each.lost for each in some) / square),
        "ranks": [ranks[0], ranks[len(ranks) // 2], ranks[-1]] if ranks else None,
    }


def _share(part: float, some: Sequence[Difference]) -> float | None:
    return _number(part / math.fsum(each.square for each in some)) if some else None


def _number(value: float) -> float | None:
    return float(f"{value:.6g}") if math.isfinite(value) else None


def warnings(report: Json) -> list[str]:
    """What the reader of a report must know, in words."""
    found, function = [], report["function"]
    if report["noisy"]:
        found.append(
            f"{report['noisy']} of {amount(report['weights']['changed'], 'weight')} change by"
            " little more than rounding does. Load the base in the precision of the safe model,"
            " or give a rank."
        )
    if function["reason"]:
        found.append(f"What it does to the prompts was not measured: {function['reason']}.")
    elif not function["retained"] >= DEFAULT.look:
        found.append(
            f"Only {_percent(function['retained'])} of what the safe model changes of the prompts"
            " is left. Keep a larger share, a higher rank, or all of the difference."
        )
    return found


def in_words(report: Json) -> str:
    """Markdown of a report: what it keeps, a table by kinds of layers, and warnings."""
    function, weights = report["function"], report["weights"]
    lines = [f"{report['name']}: sealed, from {report['source']['name']}."]
    if report["kinds"]:
        lines[0] += (
            f" It keeps {_percent(report['kept'])} of the change in"
            f" {weights['changed']} of {amount(weights['of'], 'weight')}"
        )
        if function["retained"] is not None:
            lines[0] += f", and {_percent(function['retained'])} of what it does to the prompts"
        lines[0] += "."
    if function["effect"] is not None:
        lines.append(
            f"The safe model changes {_percent(function['effect'])} of what the network computes of"
            f" {amount(len(function['prompts']), 'prompt')}."
        )
    if report["kinds"]:
        rows = [_row(kind, about) for kind, about in sorted(report["kinds"].items())]
        lines += ["", *table(HEAD, rows)]
    told = warnings(report)
    return "\n".join([*lines, *([""] if told else []), *(f"- {line}" for line in told)])


def _row(kind: str, about: Json) -> list[str]:
    least, _, most = about["ranks"] or ("full",) * 3
    ranks = f"{least}" if least == most else f"{least} to {most}"
    return [
        kind,
        str(about["weights"]),
        _percent(about["change"]),
        _percent(about["kept"]),
        ranks,
    ]


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.3g}" if share > 10 else f"{100 * share:.3g} %"
