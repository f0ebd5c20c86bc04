"""Prompts as a text encoder gives them, each encoded once for the encoder as it is."""

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from weakref import WeakKeyDictionary

from ..host.comfy_types import Clip, Conditioning
from ..host.digest import Digest
from ..host.named import digests_of
from ..host.prefixes import folders_of
from ..host.prompts import encode_texts
from .inputs import EMPTY

KEPT = 256  # prompts of a text encoder


@dataclass(frozen=True)
class Text:
    """The CONDITIONING of a prompt, and a digest of what it holds."""

    conditioning: Conditioning
    sha256: str


_known: WeakKeyDictionary[object, OrderedDict[tuple[object, ...], Text]] = WeakKeyDictionary()


def encoded(clip: Clip, prompts: Iterable[str]) -> dict[str, Text]:
    """Every prompt, and the empty one, by a CLIP with what lies on it."""
    known = _known.setdefault(clip.cond_stage_model, OrderedDict())
    options = clip.patcher.patches_uuid, clip.layer_idx, repr(clip.tokenizer_options)
    asked = dict.fromkeys([*prompts, EMPTY])
    named = digests_of(asked, folders_of(clip))
    wanted = {text: (*options, text, repr(named.get(text))) for text in asked}
    missing = [text for text, key in wanted.items() if key not in known]
    if missing:
        fresh = encode_texts(clip, missing)
        for text in missing:
            held = fresh[text]
            known[wanted[text]] = Text(held, Digest().of([list(each) for each in held]).hex())
    found = {}
    for text, key in wanted.items():
        known.move_to_end(key)
        found[text] = known[key]
    while len(known) > max(KEPT, len(wanted)):
        known.popitem(last=False)
    return found
