"""Prompts of a concept: typed, or read from a file or a safety module's metadata."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ..modules.concepts import texts_of
from ..modules.files import LoraFile
from ..storage.faults import told
from ..storage.texts import TextError, read_text
from .comfy_types import Conditioning

if TYPE_CHECKING:  # prompts are read without it
    from comfy.sd import CLIP


def prompts_of(text: str, lines: Sequence[str] = ()) -> list[str]:
    """Concept prompts from a comma-separated text and the lines of a file, each once."""
    return texts_of([*text.split(","), *lines])


def concepts_of(safety: Sequence[LoraFile]) -> list[str]:
    """The prompts that safety modules were sealed with, or trained on, or else their concept."""
    found = []
    for module in safety:
        trained_on = [] if "msl.prompts" in module.metadata else _trained_on(module)
        found += trained_on or module.prompts
    return texts_of(found)


def encode_texts(clip: CLIP, texts: Iterable[str]) -> dict[str, Conditioning]:
    """The conditioning of every text, and of the empty one, each once.

    Raises ValueError for a text with an `embedding:` that names nothing.
    """
    from .named import check_names

    texts = dict.fromkeys([*texts, ""])
    for text in texts:
        check_names(text)
    with torch.no_grad():
        return {text: clip.encode_from_tokens_scheduled(clip.tokenize(text)) for text in texts}


def lines_of(text: str) -> list[str]:
    """The lines of a text that are not empty.

    Only line ends end one: `splitlines` cuts at U+2028 and U+0085 too.
    """
    return [line.strip() for line in re.split(r"[\r\n]", text) if line.strip()]


def read_lines(file: Path | None) -> list[str]:
    """The lines of a file that are not empty; none without a file.

    Raises ValueError for a file that can't be read as a text, and for one without a line.
    """
    if file is None:
        return []
    try:
        lines = lines_of(read_text(file))
    except OSError as error:
        raise ValueError(f"{file}: its lines can't be read ({told(error)}).") from error
    except TextError as error:
        raise ValueError(f"{file}: {error}. Save it as UTF-8.") from error
    if not lines:
        raise ValueError(f"{file}: it is empty; write a prompt on each line.")
    return lines


def _trained_on(module: LoraFile) -> list[str]:
    """The `concepts` that this pack's trainer wrote into `msl.training`.

    Other tools may write anything there.
    """
    try:
        concepts = json.loads(module.metadata.get("msl.training", "{}"))["concepts"]
    except (json.JSONDecodeError, RecursionError, KeyError, TypeError):
        return []
    return (
        [text for text in concepts if isinstance(text, str)] if isinstance(concepts, list) else []
    )
