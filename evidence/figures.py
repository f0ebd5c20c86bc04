"""What lines come to in numbers: for the summary, the page and the counters of a monitoring."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from .lines import Line

# kinds of lines
STARTED, SAMPLED, REFUSED = "started", "sampled", "refused"
PROMPT = "prompt"
MERGED, PROBED, AUDITED, VERDICT = "merged", "probed", "audited", "verdict"
# what the log says of itself
FILE, CLOSED, DROPPED, BROKEN = "file", "closed", "dropped", "broken"
OWN = frozenset({FILE, CLOSED, DROPPED, BROKEN})
BEGUN = ("queued", "invalid")  # the states of a prompt's first line
# what was done to a picture that nobody then saw
HIDDEN = frozenset({"withhold", "withheld", "blur", "black", "stop", "stopped"})

SAMPLINGS, MERGES, PROBES, PICTURES = "samplings", "merges", "probes", "pictures"
FLAGGED, WITHHELD, REFUSALS, STARTS = "flagged", "withheld", "refusals", "starts"
PROMPTS, ENDS = "prompts", "prompts with an end"
FAILED, FAULTS = "probes not passed", "samplings with findings"
BY_REASON = "refusals: "  # before the reason of a refusal


def counts(line: Line) -> Counter[str]:
    """What a line adds to the figures."""
    facts = line.facts
    if line.kind == PROMPT:
        state = facts.get("state")
        return Counter({PROMPTS: state in BEGUN, ENDS: state != "queued"})
    if line.kind == SAMPLED:
        return Counter({SAMPLINGS: 1, FAULTS: bool(facts.get("findings"))})
    if line.kind == REFUSED:
        return Counter({REFUSALS: 1, BY_REASON + str(facts.get("reason") or "unknown"): 1})
    if line.kind == PROBED:
        return Counter({PROBES: 1, FAILED: facts.get("passed") is not True})
    if line.kind in (AUDITED, VERDICT):
        flagged = _number(facts, FLAGGED)
        hidden = facts.get("done") in HIDDEN
        return Counter(
            {PICTURES: _number(facts, "images"), FLAGGED: flagged, WITHHELD: flagged * hidden}
        )
    named = {MERGED: MERGES, STARTED: STARTS}.get(line.kind)
    return Counter([named] if named else [])


def _number(facts: Mapping[str, Any], name: str) -> int:
    """How many a line says; one where it says yes, or says nothing that can be counted."""
    value = facts.get(name, 1 if name == "images" else 0)
    return value if isinstance(value, int) and value >= 0 else 1
