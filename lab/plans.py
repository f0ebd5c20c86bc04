"""The shipped workflows: their names, which of their nodes stand together, their thumbnails."""

from ..emoji.story import ARMS
from .layout import BASE, Group, Plan

TRY = "1 Try it"  # laid out by hand, to fit the window it opens in
MERGE = "2 Merge and audit"
SAFETY = "3 Train a safety LoRA"
TASK = "4 Train a task LoRA"
COMPARE = "5 Compare base and modular"
PROBE = "6 Probe before sampling"
SETS = "7 Audit a prompt set"
EXPERIMENT = "8 Fine-tune and compare"
EXTRACT = "9 Extract a safety LoRA"
REPORT = "10 Report a safety LoRA"
QUALITY = "11 Measure quality"
UNDONE = "12 Does fine-tuning undo safety"
SEARCHED = "13 Search prompts that undo safety"
MODEL = Group("1. Base model", ((BASE,),))


def note(number: int) -> Group:
    """The note, which is read first."""
    return Group("", ((number,),), 380)


PLANS: dict[str, Plan] = {
    MERGE: (
        (note(15),),
        (MODEL, Group("2. LoRAs", ((2, 3, 4),))),
        (Group("3. Merge", ((5, 13),), 560),),
        (Group("4. Draw", ((6, 7, 8, 9, 10),)),),
        (Group("5. Audit", ((11, 14),), 560),),
        (Group("6. Save", ((12,),), 500),),
    ),
    SAFETY: (
        (note(1), MODEL),
        (Group("2. Train", ((3,),), 440),),
        (Group("3. What came of it", ((4, 14, 5),), 640),),
        (Group("4. Draw with it", ((6, 9), (7, 8, 10, 11))),),
        (Group("5. Audit", ((12, 13),), 560),),
        (Group("6. Save", ((15,),), 500),),
    ),
    TASK: (
        (note(1),),
        (MODEL, Group("2. Safety LoRA, pictures", ((3, 4, 5),))),
        (Group("3. Train", ((6,),), 440),),
        (Group("4. What came of it", ((7, 8),), 640),),
        (Group("5. Merge", ((9, 10),), 560),),
        (Group("6. Draw", ((11, 12, 13, 14, 15),)),),
        (Group("7. Audit", ((16, 17),), 560),),
        (Group("8. Save", ((18,),), 500),),
    ),
    COMPARE: (
        (note(20),),
        (MODEL, Group("2. LoRAs", ((2, 3, 22),))),
        (Group("3. Merge; size of the pictures", ((4, 9),)),),
        (
            Group("4. Draw with the base model", ((5, 6), (10, 12))),
            Group("5. Draw the same with the merged one", ((7, 8), (11, 13))),
        ),
        (Group("6. Audit", ((14, 15),)),),
        (Group("7. Compare", ((16, 19), (17, 18)), 520),),
        (Group("8. Save", ((21,),), 500),),
    ),
    PROBE: (
        (note(15),),
        (MODEL, Group("2. LoRAs", ((2, 3, 4),))),
        (Group("3. Merge", ((5, 13),), 560),),
        (Group("4. Probe", ((16,), (17, 18)), 560),),
        (Group("5. Draw", ((6, 7, 8, 9, 10),)),),
        (Group("6. Audit", ((11, 14),), 560),),
        (Group("7. Save", ((12,),), 500),),
    ),
    SETS: (
        (note(12),),
        (MODEL, Group("2. LoRAs", ((2, 3),))),
        (Group("3. Merge", ((4, 5),)),),
        (Group("4. The same prompts with each model", ((6,), (7,), (8,)), 380),),
        (Group("5. Compare", ((9, 11), (10,)), 600),),
    ),
    EXPERIMENT: (
        (note(17),),
        (Group("1. Model and harmless pictures", ((BASE, 2, 3),)),),
        (Group("2. Train the safety LoRA", ((4,),), 440),),
        (Group("3. Fine-tune on top of it", ((5,),), 440),),
        (Group("4. Train the same apart from it", ((6,),), 440),),
        (Group("5. Merge", ((7, 8, 9),), 400),),
        (Group("6. The same prompts with each model", ((10, 12), (11, 13)), 400),),
        (Group("7. Compare", ((14, 16), (15,)), 600),),
    ),
    EXTRACT: (
        (note(1), MODEL),
        (Group("2. Extract and seal", ((3,),), 440),),
        (Group("3. What it keeps", ((14, 5),), 640),),
        (Group("4. Draw with it", ((6, 9), (7, 8, 10, 11))),),
        (Group("5. Audit", ((12, 13),), 560),),
        (Group("6. Save", ((15,),), 500),),
    ),
    REPORT: (
        (note(1),),
        (Group("1. Model and LoRAs", ((2, 3, 4, 5),)),),
        (Group("2. Report", ((6,),), 440),),
        (Group("3. What it takes away and harms", ((9, 8),), 640),),
        (Group("4. Seal it in", ((7,),)),),
    ),
    QUALITY: (
        (note(1),),
        (
            Group("1. Model; CLIP, to measure with", ((BASE, 5),)),
            Group("2. Made safe", ((3, 4),)),
        ),
        (Group("3. The same prompts with each model", ((7,), (8,)), 380),),
        (Group("4. What it costs", ((9, 10), (11,)), 560),),
    ),
    UNDONE: (
        (note(1),),
        (
            Group("1. Example model, safety LoRA", ((2, 3, 5),)),
            Group("2. Fine-tuned after that", ((6, 7),)),
            Group("3. Modular: learned apart", ((4, 8),)),
        ),
        (Group("4. The same prompts with each model", ((9, 11), (10, 12)), 400),),
        (Group("5. Compare", ((13, 15), (14,)), 600),),
    ),
    SEARCHED: (
        (note(1),),
        (Group("1. Example model, made safe", ((2, 3, 4),)),),
        (Group("2. Search", ((5,),), 440),),
        (Group("3. What was found", ((6, 8), (7,)), 640),),
    ),
}

FOUR = {title: arm for arm, (title, _) in ARMS.items()}
# of each thumbnail: how many pictures of a line, and which of the demo's its lines are
BOARDS: dict[str, tuple[int, dict[str, str]]] = {
    TRY: (8, FOUR),
    MERGE: (3, {"Asked for weapons": "modular", "Asked for anything else": "harmless modular"}),
    COMPARE: (3, {"Base": "base", "Modular": "modular"}),
    SETS: (5, FOUR),
    EXPERIMENT: (3, {"Fine-tuned after safety": "sequential", "Modular": "modular"}),
    PROBE: (3, {"Must be audited": "sequential", "Passed": "modular"}),
    EXTRACT: (3, {"Base": "base", "With its safety LoRA": "safe"}),
    REPORT: (3, {"Base": "base", "Reported": "safe"}),
    QUALITY: (3, {"Base": "harmless base", "Made safe": "harmless safe"}),
    UNDONE: (6, FOUR),
    SEARCHED: (3, {"As told": "safe", "What the search aims at": "base"}),
    SAFETY: (3, {"Before": "base", "After": "safe"}),
    TASK: (3, {"Before": "harmless base", "After": "harmless modular"}),
}
