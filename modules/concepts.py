"""The prompts of a safety module's concept, as its metadata have them."""

import json
from collections.abc import Iterable, Mapping

from .errors import ModuleFileError


def sealed_prompts(name: str, metadata: Mapping[str, str]) -> list[str]:
    """The prompts of a safety module's concept, each once (Module.prompts)."""
    text = metadata.get("msl.prompts")
    if text is None:
        return texts_of(metadata.get("msl.concept", "").split(","))
    try:
        prompts = json.loads(text)
    except (json.JSONDecodeError, RecursionError):
        prompts = None
    if not isinstance(prompts, list) or not all(isinstance(each, str) for each in prompts):
        raise ModuleFileError(
            f"{name}: msl.prompts is {text[:80]!r}; it must be a JSON list of texts. Seal it anew."
        )
    return texts_of(prompts)


def prompts_text(prompts: Iterable[str]) -> str:
    """Prompts as `msl.prompts` has them."""
    return json.dumps(list(prompts), ensure_ascii=False)


def texts_of(texts: Iterable[str]) -> list[str]:
    """Texts without white space around them, each once; empty ones are left out."""
    return list(dict.fromkeys(text.strip() for text in texts if text.strip()))
