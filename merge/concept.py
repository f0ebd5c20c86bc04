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
from comfy.model_patcher import ModelPatcher
from comfy.utils import get_attr

from ..function.texts import encoded
from ..host.comfy_types import Clip
from ..options.words import amount
from .changes import LowRank
from .coverage import target_key
from .entries import Entry, safety_of
from .ledger import THRESHOLD, Ledger

# These are a few directions, not all weights, so a strong style that means no harm moves the number
# by chance, and what chance does is not counted. Turned at random, the outputs of a change pull
# with a standard deviation of |dW C dW_s^T| / sqrt(out) in a layer; as a layer counts at most 1,
# that takes MEAN of it from each, give or take SPREAD: those of max(0, g), g a standard normal.
MEAN, SPREAD = 1.0 / math.sqrt(2.0 * math.pi), math.sqrt(0.5 - 0.5 / math.pi)
DEVIATIONS = 5.0
FLOOR = 0.1  # under it chance is no excuse, however large the change is beside which it hides
PROMPTS_NEED_CLIP = "not measured: no clip is connected, so its prompts can't be encoded"
NO_PROMPTS = "not measured: its file names no prompts (msl.prompts) and no concept (msl.concept)"
READS_TEXT = re.compile(r"diffusion_model\..*\.attn2\.to_[kv]\.weight")


@dataclass
class ConceptLedger:
    """Sums over the layers that read the text, by safety module s with prompts.

    `why` says of the other modules why there is none. `inputs` holds R (at most width x width) with
    R^T R = X^T X for each s; `ledger` the sums, by the rules of the one over weights: each safety
    module on its own, and no layer makes up for another.
    """

    inputs: dict[int, torch.Tensor] = field(default_factory=dict)
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
        """Count one weight of the model: the changes on it, by module."""
        self.ledger.safety |= safety.keys()
        if not READS_TEXT.fullmatch(key):
            return
        for s in self.inputs.keys() & safety.keys():
            right, left = _factors(safety[s], self.inputs[s])
            given = {i: _apply(change, right) for i, change in {**safety, **others}.items()}
            for i, each in given.items():
                pull = torch.sum(each * left).item()
                if i == s:
                    self.ledger.squares.setdefault(s, {})[key] = pull
                else:
                    self.ledger.dots.setdefault((i, s), {})[key] = pull
            del given[s]
            others_give = sum(given.values(), torch.zeros_like(left))
            gram = others_give.T @ others_give
            square = torch.sum(gram * (left.T @ left)).item()  # |dW C dW_s^T|^2
            self.chance.setdefault(s, {})[key] = math.sqrt(max(square, 0.0) / len(left))

    def measured(self) -> list[int]:
        """The safety modules that have a number."""
        return [
            s
            for s in sorted(self.inputs)
            if math.fsum(self.ledger.squares.get(s, {}).values()) != 0.0
        ]

    def retained(self, s: int, among: Collection[int] | None = None) -> float | None:
        """rho_C of one safety module, of modules `among` or all beside it; None where none is."""
        return self.ledger.retained(s, among) if s in self.measured() else None

    def limit(self, s: int) -> float:
        """What must be left: 0.9, less what chance takes beside changes of this size."""
        squares = self.ledger.squares[s]
        # a layer can't be lost by chance more than once
        chance = [min(deviation, squares[key]) for key, deviation in self.chance[s].items()]
        taken = MEAN * math.fsum(chance) + DEVIATIONS * SPREAD * math.hypot(*chance)
        return max(FLOOR, THRESHOLD - taken / math.fsum(squares.values()))

    def losses(self, names: Sequence[str]) -> list[str]:
        """Which safety modules, by name, are under it, in words."""
        left = {s: self.ledger.retained(s) for s in self.measured()}
        return [
            f"retained safety of {names[s]} on its concept's prompts is {rho:.3f}, under"
            f" {self.limit(s):.3f}"
            for s, rho in left.items()
            if not rho >= self.limit(s)  # not (a < b): a number that is none counts as lost
        ]

    def reason(self, s: int) -> str:
        """What the number is of, or why there is none."""
        if s in self.measured():
            layers = amount(len(self.ledger.squares[s]), "layer")
            return (
                f"measured on its prompts in {layers} of cross-attention; sampling stops under"
                f" {self.limit(s):.3f}, which is {THRESHOLD} less what chance takes beside changes"
                " of this size"
            )
        return self.why.get(
            s, "not measured: its change does nothing to its own prompts in these layers"
        )


def concept_ledger(model: ModelPatcher, entries: Sequence[Entry]) -> ConceptLedger:
    """An empty one, with why a safety module can't be measured on this MODEL, if it can't."""
    network = getattr(model.model, "diffusion_model", None)
    made = ConceptLedger()
    for s in safety_of(entries):
        if not isinstance(network, UNetModel):
            made.why[s] = (
                "not measured: no layer of this model reads the text encoder's output directly"
            )
        elif not _text_layers(entries[s]):
            made.why[s] = "not measured: it changes no keys or values of cross-attention"
        elif not entries[s].module.prompts:
            made.why[s] = NO_PROMPTS
    return made


def encode_prompts(
    concept: ConceptLedger, clip: Clip | None, model: ModelPatcher, entries: Sequence[Entry]
) -> None:
    """Give the layers of a MODEL their inputs: the prompts as a CLIP with its changes has them."""
    measurable = [s for s in safety_of(entries) if s not in concept.why]
    if clip is None:
        concept.why |= dict.fromkeys(measurable, PROMPTS_NEED_CLIP)
        return
    if not measurable:
        return
    found = encoded(clip, [text for s in measurable for text in entries[s].module.prompts])
    outputs = {text: each.conditioning[0][0][0].float() for text, each in found.items()}
    width = outputs[""].shape[1]
    for s in measurable:
        takes = get_attr(model.model, _text_layers(entries[s])[0]).shape[1]
        if takes != width:
            concept.why[s] = (
                f"not measured: the text encoder gives {width} numbers a token, the layers take"
                f" {takes}"
            )
            continue
        rows = torch.cat([outputs[text] for text in entries[s].module.prompts])
        concept.inputs[s] = thin(rows.to(model.load_device))


def thin(rows: torch.Tensor) -> torch.Tensor:
    """R of X = QR where there are more tokens than the width: R^T R = X^T X."""
    return torch.linalg.qr(rows, mode="r").R if rows.shape[0] > rows.shape[1] else rows


def _text_layers(entry: Entry) -> list[str]:
    """The weights that a module changes and that see the text encoder's output."""
    return [key for key in map(target_key, entry.coverage.patches) if READS_TEXT.fullmatch(key)]


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
