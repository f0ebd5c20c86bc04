"""The operator's `require_audit`: which gates hold, by which preset, and what is done."""

from typing import Annotated, Literal

from pydantic import BeforeValidator

from ..storage.checked import Checked

Gate = Literal["decode", "door"]
How = Literal["withhold", "blur", "black", "stop"]


class RequireAudit(Checked):
    """`decode` looks at what VAEs decode, `door` at what the server hands out; none is off.

    With `inputs` pictures that nodes read are looked at too. `flagged` is what is done with one
    that is flagged: a notice in its place, all of it blurred or black, or an error.
    """

    gates: tuple[Gate, ...] = ("decode", "door")
    preset: str = "strict"
    flagged: How = "withhold"
    inputs: bool = False


OFF = RequireAudit(gates=())


def _read(found: object) -> object:
    """True is all defaults; an object without a gate would hold nothing, and is a mistake."""
    if isinstance(found, RequireAudit):
        return found
    if isinstance(found, bool):
        return RequireAudit() if found else OFF
    if not isinstance(found, dict):
        raise ValueError("`require_audit` must be true, false or an object")
    gates = found.get("gates")
    if gates == []:
        raise ValueError("`require_audit` names no gate: decode, door or both; or set it to false")
    return {**found, "gates": tuple(gates)} if isinstance(gates, list) else found


Wanted = Annotated[RequireAudit, BeforeValidator(_read)]
