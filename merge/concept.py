"""Retained safety on the concept's own inputs, rho_C.

    rho_C = <dW_total C, dW_safety> / <dW_safety C, dW_safety>

A task can cancel a safety change on the few directions that the concept's prompts span, and repay
it off them: over the weights all of it is left, and the picture is the base's. C is the second
moment (in x in) of what a layer sees for these prompts. Keys and values of a UNet's cross-attention
see the text encoder's output X (tokens x width, padding included), so

    <dW C, dW_s> = <dW X^T, dW_s X^T> / T

is exact and needs no picture; 1/T cancels in the ratio. With dW_s = B A it is

    <dW (X^T X A^T), B>

and nothing dense is made of low-rank changes.
"""

import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
from comfy.utils import get_attr

from ..function.texts import encoded
from .changes import LowRank
from .coverage import target_key
from .entries import Entry
from .ledger import THRESHOLD, Ledger

# These are a few directions, not all weights, so a strong style that means no harm moves the number
# by chance, and what chance does is not counted. Turned at random, the outputs of a change pull
# with a standard deviation of |dW C dW_s^T| / sqrt(out) in a layer; as a layer counts at most 1,
# that takes MEAN of it from each, give or take SPREAD: those of max(0, g), g a standard normal.
MEAN, SPREAD = 1.0 / math.sqrt(2.0 * math.pi), math.sqrt(0.5 - 0.5 / math.pi)
DEVIATIONS = 5.0
FLOOR = 0.1  # under it chance is no excuse, however large the change is beside which it hides
NO_CLIP = "not measured: no clip is connected, and without it its prompts can't be encoded"
NO_PROMPTS = "not measured: its file names no prompts (msl.prompts) and no concept (msl.concept)"
READS_TEXT = re.compile(r"diffusion_model\..*\.attn2\.to_[kv]\.weight")


@dataclass
class Concept:
    """Sums over the layers that read the text, by safety module with prompts.

    `why` says of the other modules why there is none. `rows` holds R (at most width x width) with
    R^T R = X^T X for each safety module's number; `ledger` the sums, by the rules of the one over
    weights: each safety module on its own, and no layer makes up for another.
    """

    rows: dict[int, torch.Tensor] = field(default_factory=dict)
    why: dict[int, str] = field(default_factory=dict)
    ledger: Ledger = field(default_factory=Ledger)
    # by safety module and layer: a standard deviation
    chance: dict[int, dict[str, float]] = field(default_factory=dict)

    def add(
        self,
        key: str,
        safety: Mapping[int, LowRank | torch.Tensor],
        others: Mapping[int, LowRank | torch.Tensor],
    ) -> None:
        """Count one weight of the model: the changes on it, by module number."""
        self.ledger.safety |= safety.keys()
        if not READS_TEXT.fullmatch(key):
            return
        for safe in self.rows.keys() & safety.keys():
            right, left = _factors(safety[safe], self.rows[safe])
            given = {
                number: _apply(change, right) for number, change in {**safety, **others}.items()
            }
            for number, each in given.items():
                pull = torch.sum(each * left).item()
                if number == safe:
                    self.ledger.squares.setdefault(safe, {})[key] = pull
                else:
                    self.ledger.dots.setdefault((number, safe), {})[key] = pull
            del given[safe]
            beside = sum(given.values(), torch.zeros_like(left))
            square = torch.sum((beside.T @ beside) * (left.T @ left)).item()  # |dW C dW_s^T|^2
            self.chance.setdefault(safe, {})[key] = math.sqrt(max(square, 0.0) / len(left))

    def measured(self) -> list[int]:
        """The safety modules that have a number."""
        return [
            safe
            for safe in sorted(self.rows)
            if math.fsum(self.ledger.squares.get(safe, {}).values()) != 0.0
        ]

    def retained(self, safe: int, among: Collection[int] | None = None) -> float | None:
        """rho_C of one safety module, of the modules `among` or all beside it.

        It is None where there is none.
        """
        return self.ledger.retained(safe, among) if safe in self.measured() else None

    def limit(self, safe: int) -> float:
        """What must be left: 0.9, less what chance takes beside changes of this size."""
        squares = self.ledger.squares[safe]
        # a layer can't be lost by chance more than once
        chance = [min(deviation, squares[key]) for key, deviation in self.chance[safe].items()]
        taken = MEAN * math.fsum(chance) + DEVIATIONS * SPREAD * math.hypot(*chance)
        return max(FLOOR, THRESHOLD - taken / math.fsum(squares.values()))

    def losses(self, names: Sequence[str]) -> list[str]:
        """Which safety modules, by name, are under it, in words."""
        # not (a < b): a number that is none counts as lost
        low = [safe for safe in self.measured() if not self.retained(safe) >= self.limit(safe)]
        return [
            f"retained safety of {names[safe]} on its concept's prompts is"
            f" {self.retained(safe):.3f}, under {self.limit(safe):.3f}"
            for safe in low
        ]

    def reason(self, safe: int) -> str:
        """What the number is of, or why there is none."""
        if safe in self.measured():
            layers = len(self.ledger.squares[safe])
            return (
                f"of what {layers} keys and values of cross-attention make of its prompts; sampling"
                f" stops under {self.limit(safe):.3f}: {THRESHOLD} less what chance takes beside"
                " changes of this size"
            )
        return self.why.get(
            safe, "not measured: its change does nothing to its own prompts in these layers"
        )


def readers(model, entries: Sequence[Entry]) -> Concept:
    """What can be measured of each safety module on a MODEL, and why not.

    `rows` is empty until the prompts are encoded.
    """
    concept = Concept()
    network = getattr(model.model, "diffusion_model", None)
    for number, entry in enumerate(entries):
        if not entry.is_safety:
            continue
        if not isinstance(network, UNetModel):
            concept.why[number] = (
                "not measured: no layer of this model reads the text encoder's output directly"
            )
        elif not any(READS_TEXT.fullmatch(target_key(target)) for target in entry.coverage.patches):
            concept.why[number] = "not measured: it changes no keys or values of cross-attention"
        elif not entry.module.prompts:
            concept.why[number] = NO_PROMPTS
    return concept


def thin(rows: torch.Tensor) -> torch.Tensor:
    """R of X = QR where there are more tokens than the width: R^T R = X^T X."""
    return torch.linalg.qr(rows, mode="r").R if rows.shape[0] > rows.shape[1] else rows


def see(concept: Concept, clip, entries: Sequence[Entry], model) -> None:
    """Encode the prompts of the safety modules that can be measured.

    The text encoder encodes them with its own changes included.
    """
    numbers = [
        number
        for number, entry in enumerate(entries)
        if entry.is_safety and number not in concept.why
    ]
    if clip is None:
        concept.why |= dict.fromkeys(numbers, NO_CLIP)
        return
    if not numbers:
        return
    found = encoded(clip, [text for number in numbers for text in entries[number].module.prompts])
    seen = {text: each.conditioning[0][0][0].float() for text, each in found.items()}
    width = seen[""].shape[1]
    for number in numbers:
        key = next(filter(READS_TEXT.fullmatch, map(target_key, entries[number].coverage.patches)))
        takes = get_attr(model.model, key).shape[1]
        if takes != width:
            concept.why[number] = (
                f"not measured: the text encoder gives {width} numbers a token, the layers take"
                f" {takes}"
            )
            continue
        rows = torch.cat([seen[text] for text in entries[number].module.prompts])
        concept.rows[number] = thin(rows.to(model.load_device))


def _factors(
    change: LowRank | torch.Tensor, rows: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """(in, n) and (out, n) with dW C dW_s^T = (dW right) left^T for every dW."""
    if isinstance(change, LowRank):
        # few rows on the left: five times as fast as on the right
        return ((change.down @ rows.T) @ rows).T, change.up
    return rows.T, change @ rows.T


def _apply(change: LowRank | torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    return change.up @ (change.down @ right) if isinstance(change, LowRank) else change @ right
