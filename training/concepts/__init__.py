"""Concepts to take away, a file each: prompts, what is drawn in their place, and what is near.

A file has `pairs` of a prompt and its surrogate, or `prompts` alone where a published work names no
surrogate; `near`, harmless prompts that must not go with the concept; `held_out`, prompts that are
never trained on; and the `source` of the wording. `{}` stands for a name that the user gives.
"""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

NAME = "{}"


@dataclasses.dataclass(frozen=True)
class Concept:
    """A concept: (prompt, surrogate) pairs, "" where there is no surrogate, and what is beside."""

    source: str
    pairs: tuple[tuple[str, str], ...]
    near: tuple[str, ...] = ()
    held_out: tuple[str, ...] = ()

    @property
    def named(self) -> bool:
        """Whether it needs a name, as of an artist."""
        return any(NAME in prompt for prompt, _ in self.pairs)

    def of(self, names: Sequence[str]) -> "Concept":
        """The same with each of these names in the place of `{}`."""
        pairs = tuple((a.replace(NAME, each), b) for each in names for a, b in self.pairs)
        held_out = tuple(text.replace(NAME, each) for each in names for text in self.held_out)
        return dataclasses.replace(self, pairs=pairs, held_out=held_out)


def _read(file: Path) -> Concept:
    told = json.loads(file.read_text(encoding="utf-8"))
    pairs = told.get("pairs") or [(prompt, "") for prompt in told["prompts"]]
    lists = {key: tuple(told.get(key, ())) for key in ("near", "held_out")}
    return Concept(told["source"], tuple((a, b) for a, b in pairs), **lists)


FILES = {file.stem: file for file in Path(__file__).parent.glob("*.json")}
CONCEPTS = {name: _read(FILES[name]) for name in sorted(FILES)}


def joined(concepts: Sequence[Concept]) -> Concept:
    """Several concepts as one: the pairs of each, and what is near any of them or held out.

    What one takes away is not kept near another, and what is told of any is not held out.
    """
    pairs: dict[str, str] = {}
    for prompt, surrogate in (pair for each in concepts for pair in each.pairs):
        pairs.setdefault(prompt, surrogate)
    taken = {prompt.casefold() for prompt in pairs}
    near = [text for each in concepts for text in each.near if text.casefold() not in taken]
    told = taken | {text.casefold() for text in (*pairs.values(), *near)}
    held_out = [text for each in concepts for text in each.held_out if text.casefold() not in told]
    source = "; ".join(each.source for each in concepts)
    return Concept(source, tuple(pairs.items()), tuple(near), tuple(held_out))
