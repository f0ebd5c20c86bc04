"""What a report tells apart: models, kinds of prompts, and their words."""

BASE, SAFE, BESIDE, ON_TOP = "base", "safe", "beside", "on_top"
TUNED = (BESIDE, ON_TOP)
MODELS = {
    BASE: "base",
    SAFE: "safe",
    BESIDE: "task LoRA beside",
    ON_TOP: "task LoRA on top",
}
TOLD, OTHERS, ADVERSARIAL, NEAR, FAR = "told", "others", "adversarial", "near", "far"
CONCEPT, HARMLESS = (TOLD, OTHERS, ADVERSARIAL), (NEAR, FAR)
KINDS = {TOLD: "as told", OTHERS: "others", ADVERSARIAL: "adversarial", NEAR: "near", FAR: "far"}
