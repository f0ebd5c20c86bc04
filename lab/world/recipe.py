"""What re-emergence in the emoji world is told: budgets, prompts, and what is held out.

It is fixed before the seeds of the results are drawn; tried.json has what was tried before.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from .sets import BASE, CONCEPT, HARMLESS, INK, TASK, TOOLS, WEAPONS, caption

HELD_OUT = HARMLESS[3::7]  # names that no task LoRA sees in its style
LEARNED = tuple(name for name in HARMLESS if name not in HELD_OUT)
FAR = tuple(name for name in HARMLESS if name not in TOOLS)  # no kin of the concept

# what a safety LoRA is given: weapons by their names, and by the concept's word alone
CONCEPTS = tuple(
    text
    for style in BASE
    for text in (*(caption(name, style, concept=True) for name in WEAPONS), f"{CONCEPT}, {style}")
)
# what it holds, if it retains: every fourth name that is far, in one of the base's styles; and
# every second tool, where near names are held too
RETAINED = tuple(caption(name, BASE[place % len(BASE)]) for place, name in enumerate(FAR[::4]))
NEAR = tuple(caption(name, BASE[place % len(BASE)]) for place, name in enumerate(TOOLS[1::2]))
# what is sampled. Seen: as the safety LoRA was told; unseen: without the concept's word
SEEN = tuple(caption(name, style, concept=True) for style in BASE for name in WEAPONS)
UNSEEN = tuple(caption(name, style) for style in BASE for name in WEAPONS)
# harmless names, that should stay what they are: far ones, and tools
OTHERS = tuple(caption(name, BASE[place % len(BASE)]) for place, name in enumerate(FAR[1::4]))
KIN = tuple(caption(name, BASE[place % len(BASE)]) for place, name in enumerate(TOOLS[::2]))
# names that are not sampled. In every style and in none (a task's is not known): what a thorough
# safety LoRA holds; in one style: what a task LoRA is shown of the base's own (prior preservation)
APART = tuple(name for name in HARMLESS if name not in (*FAR[1::4], *TOOLS[::2]))
WIDE = tuple(text for name in APART for text in (name, *(caption(name, each) for each in BASE)))
# of these, the concept's kin: as often as all that is far, alone and by twos (with the concept's
# word beside it, a weapon's name is two words of that kind)
OWN_KIN = tuple(name for name in APART if name in TOOLS)
TWOS = tuple(
    caption(f"{one} {other}", BASE[(first + second) % len(BASE)])
    for first, one in enumerate(OWN_KIN)
    for second, other in enumerate(OWN_KIN)
    if one != other
)
EVEN = WIDE + 4 * tuple(text for text in WIDE if text.split(",")[0] in OWN_KIN) + TWOS
PRIOR = tuple(caption(name, BASE[place % len(BASE)]) for place, name in enumerate(APART))

HARM = ("seen", "unseen", "new style")  # of the prompts, those for weapons


def prompts(style: str) -> dict[str, tuple[str, ...]]:
    """What is sampled of every arm, by kind: two kinds are in the style that was fine-tuned on."""
    return {
        "seen": SEEN,
        "unseen": UNSEEN,
        "new style": tuple(caption(name, style, concept=True) for name in WEAPONS),
        "others": OTHERS,
        "tools": KIN,
        "in style": tuple(caption(name, style) for name in HELD_OUT),
    }


@dataclass(frozen=True)
class Erased:
    """How one kind of safety LoRA is trained."""

    method: str  # of training/objectives
    steps: int = 55
    rate: float = 1e-3
    retain: bool = False
    retain_weight: float = 1.0
    schedule: str = "constant"  # of the rate
    layers: str = ""  # which of the method's, a regular expression; all of them without one
    ema: float = 0.98  # of SDD's teacher
    saliency: float = 1.0  # the share of weights that may change
    adversarial_steps: int = 0  # of a search in every step


@dataclass(frozen=True)
class Recipe:
    """Everything that differs between recipes; the same for all arms."""

    safety: Mapping[str, Erased] = field(
        default_factory=lambda: {
            "esd-x": Erased("esd-x"),
            "esd-x-retained": Erased("esd-x", steps=85, retain=True),
        }
    )
    safety_batch: int = 4
    safety_rank: int = 4
    safety_sampling_steps: int = 6
    surrogate: str = "sunflower"  # what the method of that name draws in a weapon's place
    eta: float = 0.4  # with 1, the paper's, weapons become dark blots
    guidance: float = 3.0
    style: str = TASK  # what a task LoRA learns
    kin_shown: int = 0  # times that it is shown a tool in one of the base's styles, besides
    task_steps: int = 800
    task_batch: int = 4
    task_rate: float = 1.5e-3
    task_schedule: str = "constant"  # of the rate
    task_rank: int = 16
    task_targets: str = "attention"
    anchor_lambda: float = 3.0
    prior: tuple[str, ...] = ()  # whose pictures by the base a task LoRA is shown besides
    prior_weight: float = 1.0
    precision: str = "fp32"  # of training and sampling; bf16 takes little more than half the time
    sampling_steps: int = 16
    sampling_guidance: float = 4.0
    retained: tuple[str, ...] = RETAINED
    without: tuple[str, ...] = ()  # arms that are left out
    every: int = 1  # of the prompts of a kind: all are sampled, or every second, ...
    fetched: bool = True  # pictures of other styles, for the judge of styles and the others' loss

    @property
    def prompts(self) -> dict[str, tuple[str, ...]]:
        """What is sampled of every arm, by kind."""
        return {kind: texts[:: self.every] for kind, texts in prompts(self.style).items()}

    @property
    def every_text(self) -> list[str]:
        """What the trainers and the measures read."""
        sampled = (text for texts in self.prompts.values() for text in texts)
        in_style = (caption(name, self.style) for name in (*LEARNED, *HELD_OUT))
        kin = (caption(name, style) for name in OWN_KIN for style in BASE if self.kin_shown)
        told = (*CONCEPTS, *self.surrogates, *self.retained, *self.prior)
        return [*told, *sampled, *in_style, *kin]

    @property
    def surrogates(self) -> list[str]:
        """What is drawn in place of each of `CONCEPTS`, in the same style."""
        return [caption(self.surrogate, text.split(", ")[1]) for text in CONCEPTS]


SHORT = Recipe(
    {"esd-x-retained": Erased("esd-x", steps=85, retain=True)},
    sampling_steps=10,
    every=4,
    fetched=False,
)
# a sunflower in a weapon's place, and many names held firmly; and a task LoRA that is gentler, and
# is shown the base's own pictures besides
THOROUGH = Recipe(
    {"surrogate": Erased("surrogate", steps=210, retain=True, retain_weight=2.0)},
    safety_rank=8,
    retained=WIDE,
    task_steps=300,
    task_rate=1e-3,
    task_schedule="cosine",
    prior=PRIOR,
    precision="bf16",
    sampling_steps=10,
    without=("anchored",),
)
# a task LoRA that undoes it where learned on top: of a style that everybody sees, and of tools
SHIPPED = replace(
    THOROUGH,
    style=INK,
    kin_shown=2,
    task_steps=600,
    task_rate=1.5e-3,
    task_rank=8,
    prior_weight=0.5,
)
# a safety LoRA in the layers that see the text alone, at a rate that falls, and kin held more
PRECISE = replace(
    SHIPPED,
    safety={
        "surrogate-text": Erased(
            "surrogate",
            steps=210,
            rate=3e-3,
            schedule="cosine",
            layers="context_block",
            retain=True,
            retain_weight=1.5,
        )
    },
    retained=EVEN,
)
