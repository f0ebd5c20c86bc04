"""The prompts of a safety module's concept, as its metadata have them."""

import json
from collections.abc import Iterable, Mapping

from ..options.words import amount
from .errors import ModuleFileError

PROMPTS, HELD_OUT = "msl.prompts", "msl.held_out"


def sealed_prompts(name: str, metadata: Mapping[str, str]) -> list[str]:
    """The prompts of a safety module's concept, each once (LoraFile.prompts)."""
    if PROMPTS not in metadata:
        return texts_of(metadata.get("msl.concept", "").split(","))
    return _listed(name, metadata, PROMPTS)


def sealed_held_out(name: str, metadata: Mapping[str, str]) -> list[str]:
    """Prompts of the concept that it was not trained on (LoraFile.held_out)."""
    return _listed(name, metadata, HELD_OUT) if HELD_OUT in metadata else []


def check_apart(held_out: Iterable[str], trained: Iterable[str]) -> None:
    """Raise ValueError for a prompt that is held out and trained on; case makes no other prompt."""
    known = {text.casefold() for text in trained}
    both = [text for text in held_out if text.casefold() in known]
    if both:
        more = f" (and {amount(len(both) - 1, 'more prompt')})" if both[1:] else ""
        raise ValueError(
            f"{both[0]!r}{more} is both held out and trained on. A held-out prompt shows what is"
            " left where the LoRA was not trained: take it out of one of the lists."
        )


def _listed(name: str, metadata: Mapping[str, str], key: str) -> list[str]:
    text = metadata[key]
    try:
        prompts = json.loads(text)
    except (json.JSONDecodeError, RecursionError):
        prompts = None
    if not isinstance(prompts, list) or not all(isinstance(each, str) for each in prompts):
        raise ModuleFileError(
            f"{name}: {key} is {text[:80]!r}; it must be a JSON list of texts. Seal it again."
        )
    return texts_of(prompts)


def prompts_text(prompts: Iterable[str]) -> str:
    """Prompts as `msl.prompts` and `msl.held_out` have them."""
    return json.dumps(list(prompts), ensure_ascii=False)


def texts_of(texts: Iterable[str]) -> list[str]:
    """Texts without white space around them, each once; empty ones are left out."""
    return list(dict.fromkeys(text.strip() for text in texts if text.strip()))
