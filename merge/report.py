"""The merge report: what each module brought, what of it was unused, how much safety is left."""

from collections.abc import Collection, Sequence

from ..host.bases import Origin
from ..modules.files import Module
from .concept import Concept
from .entries import Entry, labels
from .in_function import InFunction
from .ledger import SCALE, THRESHOLD, Ledger, layer_losses, losses

WORST = 3  # weights named for each module
EXISTING = -1  # the ledger's number for what already sat on the model; modules count from 0
BEFORE = "already on the model"


def build_report(
    entries: Sequence[Entry],
    ledger: Ledger,
    foreign: Sequence[dict[str, str]],
    base: str,
    concept: Concept,
    *,
    function: InFunction,
) -> dict:
    """The merge report as a JSON-ready dict.

    It has `retained_safety`, `retained_on_concept`, `worst_layer`, `modules` and more (the node's
    help page). Each safety module has its own retained safety; the report's, and that of a layer,
    is the least of them.
    """
    safety = [number for number, entry in enumerate(entries) if entry.is_safety]
    by_layer = {
        (key, safe): rho for safe in safety for key, rho in ledger.retained_by_layer(safe).items()
    }
    worst = min(by_layer, key=by_layer.__getitem__)
    low: dict[str, float] = {}
    for (key, _), rho in by_layer.items():
        if not rho >= THRESHOLD:
            low[key] = min(rho, low.get(key, rho))
    retained = min(ledger.retained(safe) for safe in safety)
    modules = [_module(number, entries, ledger, concept) for number in range(len(entries))]
    for number in safety:
        modules[number] |= _in_function(number, function)
    if EXISTING in ledger.squares:
        matched = len(ledger.squares[EXISTING])
        modules.append(
            {"name": BEFORE, "role": "existing", "sha256": None, "strength": None}
            | {"keys_matched": matched, "keys_total": matched, "keys_unused": {}}
            | {"relative_size": _number(ledger.relative_size(EXISTING))}
            | _interference(EXISTING, entries, ledger, concept)
        )
    names, lost = labels(entries), lost_of(entries, ledger, function, None, concept)
    named = [each["name"] for each in modules if each["role"] != "safety"]
    held = safety[0] if function.least is None else function.least
    seen = function.numbers.get(held)
    least = min(concept.measured(), key=concept.retained, default=safety[0])
    return {
        "base": base,
        "retained_safety": _number(retained),
        "threshold": THRESHOLD,
        "retained_on_concept": _number(concept.retained(least)),
        "on_concept": f"{names[least]}: {concept.reason(least)}",
        "retained_in_function": None if seen is None else _number(seen.retained),
        "in_function": f"{names[held]}: {function.reason(held)}",
        "worst_layer": {
            "key": worst[0],
            "retained_safety": _number(by_layer[worst]),
            "safety": names[worst[1]],
        },
        "low_layers": {key: _number(rho) for key, rho in sorted(low.items())},
        "modules": modules,
        "losses": lost,
        "looks": function.looks(names),
        "to_blame": (_to_blame(modules) or named) if lost else [],
        "foreign_changes": list(foreign),
    }


def about_base(found: Origin, safety: Sequence[Module]) -> dict:
    """What is known of the base: `base_sha256` and `base_warnings`.

    `base_sha256` is of W0, or null and the reason; `base_warnings` has a line for each module made
    for another base.
    """
    unknown = {} if found.sha256 else {"base_sha256_unknown": found.unknown}
    return {"base_sha256": found.sha256, **unknown, "base_warnings": found.warnings(safety)}


def lost_of(
    entries: Sequence[Entry],
    ledger: Ledger,
    function: InFunction,
    keys: Collection[str] | None,
    concept: Concept | None = None,
) -> list[str]:
    """What stops the sampling, in words: of a network's weights `keys`, or of all.

    A single layer of which little is left stops it only where the network was not asked: what it
    computes is what counts, and a layer more or less is no harm then.
    """
    names, found = labels(entries), []
    for safe in (number for number, entry in enumerate(entries) if entry.is_safety):
        found += losses(ledger, safe, names[safe])
        if not function.holds(safe):
            found += layer_losses(ledger, safe, names[safe], keys)
    if concept is None:
        return found
    return [*found, *concept.losses(names), *function.losses(names)]


def _in_function(number: int, found: InFunction) -> dict:
    row: dict = {"retained_in_function": None, "in_function": found.reason(number)}
    if number in found.numbers:
        seen = found.numbers[number]
        prompt, (rho, _) = next(iter(seen.by_prompt.items()))
        row |= {
            "retained_in_function": _number(seen.retained),
            "least_prompt": {"prompt": prompt, "retained_in_function": _number(rho)},
            "rise": _number(seen.rise),
            "back": _number(seen.back),
            "against": _number(seen.against),
        }
    return row


def beside_of(names: Sequence[str], ledger: Ledger) -> dict[str, dict[str, float]]:
    """Retained safety of each weight with one module alone, by the module.

    It is by the safety module too, if there are several.
    """
    several, found = len(ledger.safety) > 1, {}
    for number, name in [*enumerate(names), (EXISTING, BEFORE)]:
        for safe in sorted(ledger.safety):
            layers = ledger.retained_beside(number, safe)
            if layers:
                found[f"{name} against {names[safe]}" if several else name] = layers
    return found


def _module(number: int, entries: Sequence[Entry], ledger: Ledger, concept: Concept) -> dict:
    entry = entries[number]
    module, coverage = entry.module, entry.coverage
    row = {
        "name": module.name,
        "role": module.role,
        "sha256": module.sha256,
        "strength": entry.strength_model,
        "strength_clip": entry.strength_clip,
        "keys_matched": len(coverage.matched),
        "keys_total": len(coverage.matched) + len(coverage.unused),
        "keys_unused": dict(sorted(coverage.unused.items())),
        "relative_size": _number(ledger.relative_size(number)),
    }
    if not entry.is_safety:
        return row | _interference(number, entries, ledger, concept)
    layers = ledger.retained_by_layer(number)
    worst = min(layers, key=layers.__getitem__)
    held = {
        "retained_safety": _number(ledger.retained(number)),
        "scale": _number(ledger.scale(number)),
        "worst_layer": {"key": worst, "retained_safety": _number(layers[worst])},
    }
    seen = concept.ledger.retained_by_layer(number) if number in concept.measured() else {}
    low = min(seen, key=seen.__getitem__, default=None)
    held |= {
        "retained_on_concept": _number(concept.retained(number)),
        "worst_on_concept": (
            None if low is None else {"key": low, "retained_safety": _number(seen[low])}
        ),
        "on_concept": concept.reason(number),
    }
    return (
        row
        | held
        | (_interference(number, entries, ledger, concept) if len(ledger.safety) > 1 else {})
    )


def _interference(number: int, entries: Sequence[Entry], ledger: Ledger, concept: Concept) -> dict:
    """How a module pulls against the safety module that it takes most from.

    None when it changes no weight of one.
    """
    names = labels(entries)
    found = {
        safe: each
        for safe in sorted(ledger.safety)
        if (each := ledger.interference(number, safe)) is not None
    }
    if not found:
        return {"interference": None}
    rows = {}
    for safe, numbers in found.items():
        layers = list(ledger.retained_beside(number, safe).items())[:WORST]
        rows[names[safe]] = {name: _number(value) for name, value in numbers.items()} | {
            "worst_layers": {key: _number(rho) for key, rho in layers},
            "retained_on_concept": _number(concept.retained(safe, [number])),
        }
    worst = min(rows, key=lambda name: _least(rows[name]))
    return {
        "interference": (
            {"safety": worst, **rows[worst]} | ({"of_each": rows} if len(rows) > 1 else {})
        )
    }


def _least(found: dict) -> float:
    seen = found["retained_on_concept"]
    return min(
        [found["retained_safety"], *found["worst_layers"].values(), 1.0 if seen is None else seen]
    )


def _to_blame(modules: Sequence[dict]) -> list[str]:
    """The modules that pull against a safety change or drown it, the strongest first.

    They pull against it by any of its measures.
    """

    def least(module: dict) -> float:
        return _least(module["interference"]) if module.get("interference") else 1.0

    blamed = [
        each for each in modules if least(each) < THRESHOLD or each["relative_size"] > SCALE[0]
    ]
    return [module["name"] for module in sorted(blamed, key=least)]


def _number(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.6g}")
