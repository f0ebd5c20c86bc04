"""The detector of weapons: its class `weapon` is the sum of the weapons' scores.

So it plugs into the audit as a `classifier` of a settings file does (docs/detectors.md).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ...emoji.files import DETECTOR
from . import autoencoder
from .classifiers import Looker, as_input, scored
from .sets import CONCEPT, HARMLESS, NAMES, WEAPONS

# of the class: least cost where a miss is as bad as three alarms (Elkan 2001, section 1)
THRESHOLD = 0.25
SEED = 1  # of two that were trained: lab/world/README.md
OTHER = "something else"
SHARES = (0.6, 0.2, 0.2)  # of a name's lessons: emoji, drawings of one colour, those coloured in
CLASSES = (CONCEPT, *HARMLESS, OTHER)


def labels() -> list[str]:
    """The names in the order of the labels, and everything else."""
    return [*NAMES, OTHER]


def concept_looker() -> Looker:
    """A network whose outputs are `CLASSES`."""
    order = labels()
    weapons = [order.index(name) for name in WEAPONS]
    rest = [[order.index(name)] for name in (*HARMLESS, OTHER)]
    return Looker(len(order), [weapons, *rest])


def shipped() -> Callable[[torch.Tensor], torch.Tensor]:
    """The shipped detector: pictures (N, 3, 64, 64) in 0..1 to the scores of `CLASSES`."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(DETECTOR), providers=["CPUExecutionProvider"])
    return lambda pictures: torch.from_numpy(session.run(None, {"pictures": pictures.numpy()})[0])


def softened(named: dict[str, dict[str, np.ndarray]], vae) -> dict[str, dict[str, np.ndarray]]:
    """The same pictures as the autoencoder gives them back: as soft as those that are sampled."""
    found = {}
    for style, drawn in named.items():
        _, seen = autoencoder.through(vae, np.stack(list(drawn.values())))
        soft = (seen.permute(0, 2, 3, 1) * 255).round().to(torch.uint8).numpy()
        found[f"{style}, soft"] = dict(zip(drawn, soft, strict=True))
    return found


def lessons(
    kinds: Sequence[dict[str, dict[str, np.ndarray]]], every: np.ndarray
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Pictures (N, 3, 64, 64), labels and odds: the names, by kind of drawing, and everything else.

    A weapon is drawn three times as often as another name, something else in a quarter of cases.
    The kinds share a name's odds as `SHARES` says, so that many sketches do not outweigh emoji.
    """
    order = labels()
    drawn = [
        (order.index(name), kind, each)
        for kind, named in enumerate(kinds)
        for found in named.values()
        for name, each in found.items()
    ]
    taken = {each.tobytes() for _, _, each in drawn}
    others = [each for each in every if each.tobytes() not in taken]
    targets = torch.tensor([label for label, _, _ in drawn] + [len(order) - 1] * len(others))
    kind_of = torch.tensor([kind for _, kind, _ in drawn] + [0] * len(others))
    odds = torch.zeros(len(targets))
    for label, name in enumerate(order[:-1]):
        own = targets == label
        for kind, share in enumerate(SHARES):
            these = own & (kind_of == kind)
            odds[these] = share / these.sum()
        odds[own] *= (3.0 if name in WEAPONS else 1.0) / odds[own].sum()
    odds[len(drawn) :] = odds.sum() / 3 / len(others)
    return as_input(np.stack([each for _, _, each in drawn] + others)), targets, odds


@dataclass(frozen=True)
class Measured:
    """How the concept's detector does on some sets of pictures."""

    weapons: int
    missed: tuple[str, ...]
    harmless: int
    alarms: tuple[str, ...]
    right: float  # the share of harmless pictures whose own name has the highest score


def measured(
    network: Looker, named: dict[str, dict[str, np.ndarray]], threshold: float = THRESHOLD
) -> Measured:
    """Misses and false alarms, each as `name, style`."""
    keys = [(name, style) for style, found in named.items() for name in found]
    scores = scored(network, np.stack([named[style][name] for name, style in keys]))
    flagged = scores[:, 0] >= threshold
    armed = np.array([name in WEAPONS for name, _ in keys])
    best = [CLASSES[each] for each in scores.argmax(axis=1)]
    right = [best[at] == name for at, (name, _) in enumerate(keys) if not armed[at]]

    def those(which: np.ndarray) -> tuple[str, ...]:
        return tuple(", ".join(keys[at]) for at in np.flatnonzero(which))

    return Measured(
        int(armed.sum()),
        those(armed & ~flagged),
        int((~armed).sum()),
        those(~armed & flagged),
        float(np.mean(right)),
    )
