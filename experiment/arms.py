"""The models that the experiment compares: which LoRAs each has on, and how its own was learned."""

from dataclasses import dataclass

from ..options.language import phrase


@dataclass(frozen=True)
class Arm:
    """One model: whether the safety LoRA is on it, and in which mode its task LoRA was trained.

    `mode` is one of training/settings.py, or empty where it has no task LoRA.
    """

    name: str
    title: str
    is_safe: bool = False
    mode: str = ""


BASE = Arm("base", phrase("base"))
ALONE = Arm("task_only", phrase("task LoRA alone"), mode="detached")
SAFE = Arm("safe", phrase("made safe"), is_safe=True)
SEQUENTIAL = Arm("sequential", phrase("fine-tuned after that"), is_safe=True, mode="frozen")
MODULAR = Arm("modular", phrase("modular"), is_safe=True, mode="detached")
ANCHORED = Arm("anchored", phrase("anchored"), is_safe=True, mode="anchored")
ARMS = (BASE, ALONE, SAFE, SEQUENTIAL, MODULAR, ANCHORED)
BY_NAME = {arm.name: arm for arm in ARMS}
PAIRS = tuple((arm.name, SAFE.name) for arm in (SEQUENTIAL, MODULAR, ANCHORED))  # whose difference
