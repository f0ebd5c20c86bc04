"""The merge report: what each module brought, what of it was unused, how much safety is left."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, TypeAlias

from ..host.bases import Origin
from ..modules.files import LoraFile
from .columns import BEFORE, Brought, rounded, row_of
from .in_function import InFunction
from .ledger import EXISTING, SCALE, THRESHOLD, Ledger, layer_losses, losses
from .measure import Sums

WORST = 3  # weights named for each module
Json: TypeAlias = dict[str, Any]  # for JSON


def build_report(sums: Sums, function: InFunction, foreign: Sequence[dict[str, str]]) -> Json:
    """The merge report as a JSON-ready dict.

    It has `retained_safety`, `retained_on_concept`, `worst_layer`, `modules` and more (the node's
    help page). Each safety module has its own retained safety; the report's, and that of a layer,
    is the least of them.
    """
    modules = _modules(sums, function)
    lost = lost_of(sums, function)
    named = [each["name"] for each in modules if each["role"] != "safety"]
    return {
        "base": sums.base.name,
        **_least_left(sums, function),
        **_layers(sums),
        "modules": modules,
        "losses": lost,
        "looks": function.looks(sums.names),
        "to_blame": (_to_blame(modules) or named) if lost else [],
        "foreign_changes": list(foreign),
    }


def _least_left(sums: Sums, function: InFunction) -> Json:
    """What is left of the safety module that keeps least, by each of the three measures."""
    names, safety, concept = sums.names, sums.safety, sums.concept
    held = safety[0] if function.least is None else function.least
    number = function.numbers.get(held)
    on_concept = {s: concept.ledger.retained(s) for s in concept.measured()}
    least = min(on_concept, key=on_concept.__getitem__, default=safety[0])
    return {
        "retained_safety": rounded(min(sums.ledger.retained(s) for s in safety)),
        "threshold": THRESHOLD,
        "retained_on_concept": rounded(on_concept.get(least)),
        "on_concept": f"{names[least]}: {concept.reason(least)}",
        "retained_in_function": None if number is None else rounded(number.retained),
        "in_function": f"{names[held]}: {function.reason(held)}",
    }


def _layers(sums: Sums) -> Json:
    """The weight of which least is left, and all under the threshold."""
    by_layer = {
        (key, s): rho for s in sums.safety for key, rho in sums.ledger.retained_by_layer(s).items()
    }
    worst = min(by_layer, key=by_layer.__getitem__)
    low: dict[str, float] = {}
    for (key, _), rho in by_layer.items():
        if not rho >= THRESHOLD:
            low[key] = min(rho, low.get(key, rho))
    return {
        "worst_layer": {
            "key": worst[0],
            "retained_safety": rounded(by_layer[worst]),
            "safety": sums.names[worst[1]],
        },
        "low_layers": {key: rounded(rho) for key, rho in sorted(low.items())},
    }


def about_base(found: Origin, safety: Sequence[LoraFile]) -> Json:
    """What is known of the base: `base_sha256` and `base_warnings`.

    `base_sha256` is of W0, or null and the reason; `base_warnings` has a line for each module made
    for another base.
    """
    unknown = {} if found.sha256 else {"base_sha256_unknown": found.unknown}
    return {"base_sha256": found.sha256, **unknown, "base_warnings": found.warnings(safety)}


def lost_of(sums: Sums, function: InFunction, keys: Collection[str] | None = None) -> list[str]:
    """What stops the sampling, in words: by all measures, of the weights `keys` or of all."""
    return [
        *lost_in(sums, function, keys),
        *sums.concept.losses(sums.names),
        *function.losses(sums.names),
    ]


def lost_in(sums: Sums, function: InFunction, keys: Collection[str] | None) -> list[str]:
    """What stops it over the weights.

    A single layer of which little is left stops it only where the network was not asked: what it
    computes is what counts, and a layer more or less is no harm then.
    """
    found = []
    for s in sums.safety:
        found += losses(sums.ledger, s, sums.names[s])
        if not function.holds(s):
            found += layer_losses(sums.ledger, s, sums.names[s], keys)
    return found


def _in_function(s: int, function: InFunction) -> Json:
    row: Json = {"retained_in_function": None, "in_function": function.reason(s)}
    if s in function.numbers:
        number = function.numbers[s]
        prompt, (rho, _) = next(iter(number.by_prompt.items()))
        row |= {
            "retained_in_function": rounded(number.retained),
            "least_prompt": {"prompt": prompt, "retained_in_function": rounded(rho)},
            "rise": rounded(number.rise),
            "back": rounded(number.back),
            "against": rounded(number.against),
        }
    return row


def interference_of(names: Sequence[str], ledger: Ledger) -> dict[str, dict[str, float]]:
    """Retained safety of each weight with one module alone, by the module.

    With several safety modules the key is `<module> against <safety module>`.
    """
    several, found = len(ledger.safety) > 1, dict[str, dict[str, float]]()
    for i, name in [*enumerate(names), (EXISTING, BEFORE)]:
        for s in sorted(ledger.safety):
            layers = ledger.retained_with(i, s)
            if layers:
                found[f"{name} against {names[s]}" if several else name] = layers
    return found


def _modules(sums: Sums, function: InFunction) -> list[Json]:
    """A row for each module, and one for what sat on the model before."""
    rows = [_module(i, sums) for i in range(len(sums.entries))]
    for s in sums.safety:
        rows[s] |= _in_function(s, function)
    if EXISTING in sums.ledger.squares:
        rows.append(row_of(Brought(sums.ledger, EXISTING)) | _interference(EXISTING, sums))
    return rows


def _module(i: int, sums: Sums) -> Json:
    entry = sums.entries[i]
    row = row_of(Brought(sums.ledger, i, entry))
    if not entry.is_safety:
        return row | _interference(i, sums)
    others = _interference(i, sums) if len(sums.ledger.safety) > 1 else {}
    return row | _left(i, sums) | others


def _left(s: int, sums: Sums) -> Json:
    """How much of a safety module is left, over its weights and on its concept's prompts."""
    ledger, concept = sums.ledger, sums.concept
    layers = ledger.retained_by_layer(s)
    worst = min(layers, key=layers.__getitem__)
    on_concept = concept.ledger.retained_by_layer(s) if s in concept.measured() else {}
    low = min(on_concept, key=on_concept.__getitem__, default=None)
    return {
        "retained_safety": rounded(ledger.retained(s)),
        "scale": rounded(ledger.scale(s)),
        "worst_layer": {"key": worst, "retained_safety": rounded(layers[worst])},
        "retained_on_concept": rounded(concept.retained(s)),
        "worst_on_concept": (
            None if low is None else {"key": low, "retained_safety": rounded(on_concept[low])}
        ),
        "on_concept": concept.reason(s),
    }


def _interference(i: int, sums: Sums) -> Json:
    """How a module pulls against the safety module that it takes most from, or None."""
    ledger = sums.ledger
    rows: dict[str, Json] = {}
    for s in sorted(ledger.safety):
        found = ledger.interference(i, s)
        if found is not None:
            layers = list(ledger.retained_with(i, s).items())[:WORST]
            rows[sums.names[s]] = {
                **{name: rounded(value) for name, value in found.items()},
                "worst_layers": {key: rounded(rho) for key, rho in layers},
                "retained_on_concept": rounded(sums.concept.retained(s, [i])),
            }
    if not rows:
        return {"interference": None}
    worst = min(rows, key=lambda name: _least(rows[name]))
    of_each = {"of_each": rows} if len(rows) > 1 else {}
    return {"interference": {"safety": worst, **rows[worst], **of_each}}


def _least(found: Mapping[str, Any]) -> float:
    on_concept = found["retained_on_concept"]
    left: list[float] = [found["retained_safety"], *found["worst_layers"].values()]
    return min([*left, 1.0 if on_concept is None else on_concept])


def _to_blame(modules: Sequence[Json]) -> list[str]:
    """The modules that by any measure pull against a safety change or drown it, strongest first."""

    def least(module: Json) -> float:
        return _least(module["interference"]) if module.get("interference") else 1.0

    blamed = [
        each for each in modules if least(each) < THRESHOLD or each["relative_size"] > SCALE[0]
    ]
    return [module["name"] for module in sorted(blamed, key=least)]
