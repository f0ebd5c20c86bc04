"""The merge report: what each module brought, what of it was not used, and how much safety is left."""

from collections.abc import Sequence

from .entries import Entry
from .measure import LAYER_THRESHOLD, THRESHOLD, Ledger

WORST = 3  # weights named for each module


def build_report(
    entries: Sequence[Entry], ledger: Ledger, existing: int, foreign: Sequence[dict[str, str]], base: str
) -> dict:
    """A JSON-ready dict: `retained_safety`, `worst_layer`, `low_layers`, `modules`, `foreign_changes` (design, section 4).

    `existing` is the number under which the ledger counts what already sat on the model.
    """
    by_layer = ledger.retained_by_layer()
    worst = min(by_layer, key=by_layer.__getitem__)
    modules = [_module(number, entry, ledger) for number, entry in enumerate(entries)]
    undone = ledger.retained() < THRESHOLD or by_layer[worst] < LAYER_THRESHOLD
    if existing in ledger.change_squares:
        modules.append(
            {"name": "already on the model", "role": "existing", "sha256": None, "strength": None}
            | {"keys_matched": ledger.weights[existing], "keys_total": ledger.weights[existing], "keys_unused": {}}
            | {"relative_size": _number(ledger.relative_size(existing))}
            | _interference(existing, ledger)
        )
    return {
        "base": base,
        "retained_safety": _number(ledger.retained()),
        "threshold": THRESHOLD,
        "worst_layer": {"key": worst, "retained_safety": _number(by_layer[worst])},
        "low_layers": {key: _number(rho) for key, rho in sorted(by_layer.items()) if rho < THRESHOLD},
        "modules": modules,
        "to_blame": _to_blame(modules) if undone else [],
        "foreign_changes": list(foreign),
    }


def _module(number: int, entry: Entry, ledger: Ledger) -> dict:
    module, coverage = entry.module, entry.coverage
    return {
        "name": module.name,
        "role": module.role,
        "sha256": module.sha256,
        "strength": entry.strength_model,
        "strength_clip": entry.strength_clip,
        "keys_matched": len(coverage.matched),
        "keys_total": len(coverage.matched) + len(coverage.unused),
        "keys_unused": dict(sorted(coverage.unused.items())),
        "relative_size": _number(ledger.relative_size(number)),
        **({} if entry.is_safety else _interference(number, ledger)),
    }


def _interference(number: int, ledger: Ledger) -> dict:
    """How a module pulls against the safety change, when both change a weight."""
    found = ledger.interference(number)
    if found is None:
        return {"interference": None}
    worst = {key: _number(rho) for key, rho in list(ledger.retained_beside(number).items())[:WORST]}
    return {"interference": {name: _number(value) for name, value in found.items()} | {"worst_layers": worst}}


def _to_blame(modules: Sequence[dict]) -> list[str]:
    """The modules that pull against the safety change, over all weights or in one, the strongest first."""

    def least(module: dict) -> float:
        found = module.get("interference")
        return min([found["retained_safety"], *found["worst_layers"].values()]) if found else 1.0

    return [module["name"] for module in sorted(modules, key=least) if least(module) < THRESHOLD]


def _number(value: float) -> float:
    return float(f"{value:.6g}")
