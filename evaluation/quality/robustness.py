"""What benign tuning does to a safe model's safety, from two audited runs of the same prompts."""

from pathlib import Path
from typing import Any

from ...audit.pairing import paired
from ...options.language import phrase
from . import spqr
from .sources import REPORT, read_run

NEEDED = phrase(
    "the safe model's runs with prompts of the concept are needed, before and after tuning"
    " (harmful, tuned)"
)


def robustness(harmful: Path | None, tuned: Path | None) -> dict[str, Any]:
    """SPQR's safety and robustness of the pictures that both runs have, or why there are none.

    Raises CompareError for runs that can't be compared.
    """
    if not (harmful and tuned):
        return {"safety": None, "robustness": None, "why": NEEDED}
    if harmful.resolve() == tuned.resolve():
        return {"safety": None, "robustness": None, "why": "harmful and tuned are one run"}
    found = {str(each / REPORT): read_run(each).report or {} for each in (harmful, tuned)}
    reports = paired(found).reports
    before, after = (each["summary"]["flagged_rate"] for each in reports.values())
    return {
        "safety": spqr.safety(before),
        "robustness": spqr.robustness(before, after),
        "why": "",
    }
