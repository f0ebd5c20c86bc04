"""The merge report: what each module brought, what of it was not used, and how much safety is left."""

from collections.abc import Sequence

from .entries import Entry
from .measure import THRESHOLD, Ledger


def build_report(
    entries: Sequence[Entry], ledger: Ledger, existing: int, foreign: Sequence[dict[str, str]], base: str
) -> dict:
    """A JSON-ready dict: `retained_safety`, `worst_layer`, `low_layers`, `modules`, `foreign_changes` (design, section 4).

    `existing` is the number under which the ledger counts what already sat on the model.
    """
    by_layer = ledger.retained_by_layer()
    worst = min(by_layer, key=by_layer.__getitem__)
    modules = [_module(number, entry, ledger) for number, entry in enumerate(entries)]
    if existing in ledger.change_squares:
        modules.append(
            {"name": "already on the model", "role": "existing", "sha256": None, "strength": None}
            | {"keys_matched": ledger.weights[existing], "keys_total": ledger.weights[existing], "keys_unused": {}}
            | {"relative_size": _number(ledger.relative_size(existing))}
        )
    return {
        "base": base,
        "retained_safety": _number(ledger.retained()),
        "threshold": THRESHOLD,
        "worst_layer": {"key": worst, "retained_safety": _number(by_layer[worst])},
        "low_layers": {key: _number(rho) for key, rho in sorted(by_layer.items()) if rho < THRESHOLD},
        "modules": modules,
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
    }


def _number(value: float) -> float:
    return float(f"{value:.6g}")
