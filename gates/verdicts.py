"""What the gates found of a picture, for whoever keeps it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Verdict:
    """One picture, video or file, and what was done with it.

    `where` it was looked at: "decode", "door" or "input". `detector` and `digest` are SHA-256: of
    what the detector's results depend on, and of the pixels or, at the door, of the bytes handed
    out. `counts` are counted detections by class. `done` is "passed", or what was done: "withhold",
    "blur", "black", "stop". `reason` is why one could not be looked at; such a one is flagged.

    `client_id`, `user` and `prompt_id` are as ComfyUI was told them, not authenticated; empty where
    it was not told.
    """

    where: str
    flagged: bool
    done: str
    digest: str
    preset: str
    detector: str
    counts: Mapping[str, int] = field(default_factory=dict)
    reason: str = ""
    prompt_id: str = ""
    node_id: str = ""
    client_id: str = ""
    user: str = ""


# Each is told every verdict, in the thread that looked. One that raises closes the gate: the
# picture goes nowhere.
listeners: list[Callable[[Verdict], None]] = []


def publish(verdict: Verdict) -> None:
    """Tell all who listen. Raises what they raise."""
    for listener in listeners:
        listener(verdict)
