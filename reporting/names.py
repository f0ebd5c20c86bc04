"""What a report tells apart: models, kinds of prompts, and their words."""

from ..options.language import phrase

BASE, SAFE, BESIDE, ON_TOP = "base", "safe", "beside", "on_top"
TUNED = (BESIDE, ON_TOP)
MODELS = {
    BASE: phrase("base"),
    SAFE: phrase("safe"),
    BESIDE: phrase("task LoRA beside"),
    ON_TOP: phrase("task LoRA on top"),
}
TOLD, OTHERS, ADVERSARIAL, NEAR, FAR = "told", "others", "adversarial", "near", "far"
CONCEPT, HARMLESS = (TOLD, OTHERS, ADVERSARIAL), (NEAR, FAR)
KINDS = {
    TOLD: phrase("as told"),
    OTHERS: phrase("others"),
    ADVERSARIAL: phrase("adversarial"),
    NEAR: phrase("near"),
    FAR: phrase("far"),
}
