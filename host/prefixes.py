"""Embeddings of tokens before a prompt, as ComfyUI reads `embedding:NAME prompt`."""

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from comfy.sd1_clip import SDClipModel

from ..options.errors import PackError
from ..options.words import amount
from .comfy_types import Clip, Conditioning
from .named import NOTHING, WORD, digests_of, named_in, several

# text encoders that can be searched, by what the host calls their tokens; these share a vocabulary
ENCODERS = {"l": "clip_l", "g": "clip_g", "h": "clip_h"}
STAND_IN = "a"  # one token in each of them

Prefix = Mapping[str, torch.Tensor]  # by encoder, as in a file of an embedding: (tokens, C)


class PrefixError(PackError, ValueError):
    """There can't be embeddings before this prompt, or not with this text encoder."""


def encoders_of(clip: Clip) -> dict[str, SDClipModel]:
    """A CLIP's text encoders by the names that an embedding's file has.

    Raises PrefixError for one that is not of CLIP's kind, such as T5.
    """
    model = clip.cond_stage_model
    found = {name: each for name, each in model.named_children() if isinstance(each, SDClipModel)}
    others = [name for name in found if name not in ENCODERS.values()]
    if others or not found:
        raise PrefixError(
            f"This model reads text with {', '.join(others) or type(model).__name__}. Words can be"
            " searched for where CLIP alone reads it, as in SD1.5, SDXL, and SD3 without T5."
        )
    return found


def vocabulary(encoder: SDClipModel) -> torch.Tensor:
    """The embeddings of all tokens, (words, C), float32, where they lie."""
    weight: torch.Tensor = encoder.transformer.get_input_embeddings().weight
    return weight.detach().float()


def with_prefix(clip: Clip, text: str, prefix: Prefix) -> Conditioning:
    """The CONDITIONING of a text with embeddings before it, with gradients to them.

    It is what the host makes of `embedding:NAME text`, with a file NAME that holds `prefix`. Raises
    PrefixError where the host would put them elsewhere.
    """
    count = len(next(iter(prefix.values())))
    tokens = clip.tokenize(" ".join([STAND_IN] * count + [text]))
    for name, encoder in ENCODERS.items():
        if encoder not in prefix:
            continue
        (start, *words), *more = tokens[name]
        stand_in = clip.tokenize(STAND_IN)[name][0][1][0]
        if [token for token, _ in words[:count]] != [stand_in] * count:
            raise PrefixError(f"{text!r} leaves no place for {amount(count, 'token')} before it.")
        rows = [(row, 1.0) for row in prefix[encoder]]
        tokens[name] = [[start, *rows, *words[count:]], *more]
    return clip.encode_from_tokens_scheduled(tokens)


def check_read(clip: Clip, text: str, told: str, count: int) -> None:
    """Raise PrefixError unless the host reads `count` more embedded tokens in a text than as told.

    It leaves out what it can't read with a warning, and without a folder it spells the file's name.
    """
    found, own = _embedded(clip, text), _embedded(clip, told)
    for name, encoder in ENCODERS.items():
        if encoder in encoders_of(clip) and (read := found[name] - own[name]) != count:
            raise PrefixError(
                f"{text!r}: ComfyUI reads {read} of {amount(count, 'embedded token')}."
            )


def _embedded(clip: Clip, text: str) -> dict[str, int]:
    """How many tokens of a text are of embeddings, by what the host calls an encoder's tokens.

    Those of another width than any encoder's are not counted: it leaves them out when it encodes.
    """
    encoders = (each for each in clip.cond_stage_model.modules() if isinstance(each, SDClipModel))
    widths = {each.transformer.get_input_embeddings().weight.shape[1] for each in encoders}

    def is_read(token: object) -> bool:
        return torch.is_tensor(token) and len(token) in widths

    return {
        name: sum(is_read(each) for part in parts for each, _ in part)
        for name, parts in clip.tokenize(text).items()
    }


def faults_of(clip: Clip, text: str) -> list[str]:
    """Why the host reads a text otherwise than it is written, by the embeddings that it names."""
    if WORD not in text:
        return []
    if named_in(text)[1]:
        return [NOTHING]
    if lost := unread(clip, text):
        return [f"ComfyUI can't read {', '.join(lost)}"]
    if unsure := several(digests_of([text], folders_of(clip))[text]):
        return [f"{', '.join(unsure)} names different files; rename all but one"]
    whole, alone = _embedded(clip, text), [_alone(clip, each.name) for each in named_in(text)[0]]
    if any(count != sum(each[part] for each in alone) for part, count in whole.items()):
        return ["ComfyUI can't read all of its embeddings"]
    return []


def unread(clip: Clip, text: str) -> list[str]:
    """The embeddings that a text names and the host can't read: it spells them, or leaves them out.

    Found as the host finds them, each in a text of its own. None of them names nothing.
    """
    return [
        each.written
        for each in named_in(text)[0]
        if not (each.name and any(_alone(clip, each.name).values()))
    ]


def _alone(clip: Clip, name: str) -> dict[str, int]:
    return _embedded(clip, f"{WORD}{name}".replace("(", r"\(").replace(")", r"\)"))


def folders_of(clip: Clip) -> list[str]:
    """Where a text encoder looks for the embeddings that prompts name."""
    found = [_listed(each.embedding_directory) for each in _parts(clip)]
    return list(dict.fromkeys(folder for folders in found for folder in folders))


@contextlib.contextmanager
def embeddings_in(clip: Clip, folder: Path) -> Iterator[None]:
    """A block in which prompts may name the embeddings that lie in a folder too."""
    parts = _parts(clip)
    before = [each.embedding_directory for each in parts]
    for each, own in zip(parts, before, strict=True):
        each.embedding_directory = [str(folder), *_listed(own)]
    try:
        yield
    finally:
        for each, own in zip(parts, before, strict=True):
            each.embedding_directory = own


def _parts(clip: Clip) -> list[Any]:
    """Its tokenizers, which read embeddings."""
    parts = vars(clip.tokenizer).values()  # type: ignore[attr-defined]
    return [each for each in parts if hasattr(each, "embedding_directory")]


def _listed(folders: str | list[str] | None) -> list[str]:
    return [folders] if isinstance(folders, str) else list(folders or ())
