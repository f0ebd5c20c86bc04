"""Limits from LoRAs that are harmless by somebody's word: the least of n that were measured.

For one more of the same kind the expected share of false alarms is then 1 / (n + 1), whatever the
numbers' distribution; of LoRAs that are not of their kind this says nothing.
"""

import json
import math

from ..function.limits import Limits
from ..options.words import amount

COUNTED = "counted"  # of a row: what the limits are held against, at the merge and in the long look


def calibrated(rows: list[dict], limits: Limits) -> str:
    """What follows from the rows of a probe, in words, and as JSON for the operator's settings.

    A LoRA that only damps what prompts say is under no limit, and brings none down. Raises
    ValueError where a row has no number: of what is left, the least is not known.
    """
    without = [each["name"] for each in rows if None in (each.get("short"), each.get("least"))]
    if without:
        more = f" and {amount(len(without) - 1, 'more LoRA')}" if without[1:] else ""
        raise ValueError(
            f"{without[0]}{more} could not be measured, and the limits need every LoRA. Leave it"
            " out, or correct what its row says."
        )
    short, long = (min(each[which] for each in rows) for which in ("short", "least"))
    least, count = min(value for each in rows for value in each[COUNTED]), len(rows)
    said = (
        f"{amount(count, 'harmless LoRA')}; least at the merge {short:.3f}, in the probe"
        f" {long:.3f}.\n"
    )
    if math.isinf(least):
        return f"{said}None of them would be under any limit: look stays {limits.look}."
    look = max(0.0, min(1.0, math.floor(least * 1000) / 1000))
    stop = min(limits.stop, look)
    settings = {"retained_in_function": {"stop": stop, "look": look}}
    return (
        f"{said}look = {look}: of other LoRAs of their kind 1 in {count + 1} is expected to be"
        f" looked at for nothing.\nstop = {stop}: not measured here, and at most look.\n"
        f"For modular-safety-lora.json:\n    {json.dumps(settings)[1:-1]}"
    )
