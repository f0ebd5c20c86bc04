"""The figures of the pictures that were looked at, of one source and of two, JSON-ready."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from .cache import Cache
from .change import apart, change, cosine_distances
from .clip_score import clip_score, scores
from .cmmd import LEAST, cmmd
from .encoders import Encoders
from .looking import NO_TEXT, Seen, pixels_apart
from .pairing import Pairs, pairs
from .resampling import draws, mean_95

MOST = 24  # pairs that the report names
Json = dict[str, Any]
Texts = dict[str, np.ndarray]


def of_one(seen: Seen, texts: Texts, encoders: Encoders) -> Json:
    """What is measured of one source alone."""
    told = [each for each in seen.pictures if each.prompt]
    left_out = dict(seen.left_out)
    mute = [each.name for each in told if each.prompt not in texts]
    if mute:
        left_out[NO_TEXT] = mute
    found = _with_prompts(seen, texts)
    prompts = list(dict.fromkeys(each.prompt for each in told if each.prompt))
    return {
        "name": seen.source.name,
        "report_sha256": seen.source.digest or None,
        "pictures": len(seen.pictures),
        "left_out": {
            why: {"pictures": len(names), "first": names[0]}
            for why, names in left_out.items()
            if names
        },
        "without_prompt": len(seen.pictures) - len(told),
        "long_prompts": sum(map(encoders.is_cut, prompts)),
        "clip_score": _clip_score(seen, found, texts),
    }


def _with_prompts(seen: Seen, texts: Texts) -> list[int]:
    return [place for place, each in enumerate(seen.pictures) if each.prompt in texts]


def _clip_score(seen: Seen, places: Sequence[int], texts: Texts) -> Json | None:
    if not places:
        return None
    prompts = [str(seen.pictures[place].prompt) for place in places]
    of = np.stack([texts[each] for each in prompts])
    found = clip_score(seen.vectors[list(places)], of, prompts)
    return asdict(found) | {"unrelated": found.unrelated}


def of_two(
    first: Seen, second: Seen, texts: Texts, cache: Cache, on_block: Callable[[], None]
) -> Json:
    """What is measured of two sources: CMMD, and the change of pictures of one prompt and seed."""
    found = pairs(first, second)
    places = [list(each) for each in zip(*found.places, strict=True)] or None
    groups = [[each.prompt or each.name for each in one.pictures] for one in (first, second)]
    if places:
        vectors = [one.vectors[where] for one, where in zip((first, second), places, strict=True)]
        drawn = draws([groups[0][place] for place in places[0]])
        weights = None if drawn is None else (drawn, drawn)
    else:
        vectors = [first.vectors, second.vectors]
        both = draws(groups[0]), draws(groups[1], seed=1)
        weights = None if both[0] is None or both[1] is None else (both[0], both[1])
    enough = min(map(len, vectors)) >= LEAST
    apart_ = (
        cmmd(vectors[0], vectors[1], weights, paired=bool(places), on_block=on_block)
        if enough
        else None
    )
    return {
        "cmmd": asdict(apart_) | {"pictures": [*map(len, vectors)]} if apart_ else None,
        "unpaired": {
            why: {"pictures": len(names), "first": names[0]}
            for why, names in found.left_out.items()
            if places or second.source.report is not None  # photographs are nobody's partners
        },
        "difference": _difference(first, second, found, texts),
        "change": _change(first, second, found, cache, on_block) if places else None,
    }


def _difference(first: Seen, second: Seen, found: Pairs, texts: Texts) -> Json | None:
    """How much higher the first one's CLIP score is, over pairs with a prompt."""
    both = [
        (one, other)
        for one, other in found.places
        if first.pictures[one].prompt in texts
        and first.pictures[one].prompt == second.pictures[other].prompt
    ]
    if not both:
        return None
    prompts = [str(first.pictures[one].prompt) for one, _ in both]
    of = np.stack([texts[each] for each in prompts])
    own = [
        scores(seen.vectors[list(places)], of)
        for seen, places in zip((first, second), zip(*both, strict=True), strict=True)
    ]
    weights = draws(prompts)
    return {
        "mean": float((own[0] - own[1]).mean()),
        "mean_95": mean_95(own[0] - own[1], weights),
        "scores": [float(each.mean()) for each in own],
        "pairs": len(both),
    }


def _change(
    first: Seen, second: Seen, found: Pairs, cache: Cache, on_pair: Callable[[], None]
) -> Json:
    one, other = ([*each] for each in zip(*found.places, strict=True))
    moved = cosine_distances(first.vectors[one], second.vectors[other])
    pixels = []
    for a, b in found.places:
        both = (first.pictures[a], first.digests[a]), (second.pictures[b], second.digests[b])
        pixels.append(pixels_apart(*both, cache))
        on_pair()
    prompts = [second.pictures[b].prompt or second.pictures[b].name for b in other]
    different = apart(second.vectors[other], prompts)
    order = sorted(range(len(moved)), key=lambda place: -moved[place])[:MOST]
    most = [
        {
            "name": first.pictures[one[place]].name,
            "cosine": float(moved[place]),
            "pixels": pixels[place],
        }
        for place in order
    ]
    return asdict(change(moved, pixels, different, draws(prompts))) | {"most": most}
