"""What is drawn in a concept's place: a surrogate for each of its prompts."""

from collections.abc import Sequence

from ..options.words import amount
from .objectives import METHODS

TEMPLATE = "{}"


def paired(concepts: Sequence[str], surrogates: Sequence[str]) -> list[tuple[str, str]]:
    """(concept, surrogate) for each concept prompt, each once; "" where there is none.

    One surrogate is for all, several are for one prompt each. A prompt with `{}` is a template that
    takes every surrogate in turn: `{} by Hokusai` with `a bridge` becomes `a bridge by Hokusai`, in
    whose place `a bridge` is drawn. Raises ValueError for surrogates that can't be matched.
    """
    templates = [each for each in concepts if TEMPLATE in each]
    if templates and not surrogates:
        raise ValueError(
            f"{templates[0]!r} is a template: give surrogate the texts that take the place of"
            f" {TEMPLATE}, a line each, or write the prompt out."
        )
    plain = [each for each in concepts if TEMPLATE not in each]
    if templates and plain and len(surrogates) > 1:
        raise ValueError(
            f"{templates[0]!r} is a template and {plain[0]!r} is not: {len(surrogates)} surrogates"
            " can't be matched with both. Write templates alone, or one surrogate for all."
        )
    if len(surrogates) > 1 and plain and len(surrogates) != len(plain):
        raise ValueError(
            f"There are {amount(len(plain), 'concept prompt')} and"
            f" {amount(len(surrogates), 'surrogate')}. Write one surrogate for all prompts, or one"
            " for each, a line each and in their order."
        )
    each_of = surrogates if len(surrogates) > 1 else [*surrogates, ""][:1] * len(plain)
    pairs = list(zip(plain, each_of, strict=True)) if plain else []
    pairs += [(t.replace(TEMPLATE, each), each) for t in templates for each in surrogates]
    found: dict[str, str] = {}
    for concept, surrogate in pairs:
        found.setdefault(concept, surrogate)
    return list(found.items())


def check_surrogates(method: str, concepts: Sequence[str], surrogates: Sequence[str]) -> None:
    """Raise ValueError where the method lacks a surrogate that it needs, or has one too many.

    A method that uses surrogates without need has one for each prompt, or none.
    """
    told = METHODS[method]
    if not told.surrogates or not (surrogates or told.needs_surrogates):
        return
    missing = [
        prompt
        for place, prompt in enumerate(concepts)
        if not (place < len(surrogates) and surrogates[place].strip())
    ]
    if missing and told.needs_surrogates:
        raise ValueError(
            f"The method {method} needs to know what to draw in place of"
            f" {amount(len(missing), 'prompt')} (first: {missing[0]!r}). Write it in surrogate,"
            " among the node's advanced inputs, such as 'a person in everyday clothes': one line"
            " for all prompts, or a line for each. Or choose a concept_preset that brings its own,"
            " or another method."
        )
    if len(surrogates) != len(concepts):
        raise ValueError(
            f"There are {amount(len(concepts), 'concept prompt')} and"
            f" {amount(len(surrogates), 'surrogate')}: each needs its own."
        )
    same = [a for a, b in zip(concepts, surrogates, strict=True) if a.casefold() == b.casefold()]
    if same:
        raise ValueError(
            f"{same[0]!r} is its own surrogate: nothing would change. Write what else to draw."
        )
    taken = {concept.casefold() for concept in concepts}
    back = [(a, b) for a, b in zip(concepts, surrogates, strict=True) if b.casefold() in taken]
    if back:
        raise ValueError(
            f"{back[0][1]!r} is drawn in place of {back[0][0]!r}, and is taken away too. Write"
            " something else to draw."
        )
