"""Digests, and the seal that makes a safety module tamper-evident (docs/module-files.md)."""

import hashlib
import json
import math
from collections.abc import Iterable, Mapping

import torch

VERSION = "1"
UNSEALED_KEYS = frozenset({"msl.seal", "msl.signature"})


def tensors_sha256(tensors: Mapping[str, torch.Tensor], dtypes: Mapping[str, str]) -> str:
    """SHA-256 over name, dtype, shape and raw bytes of every tensor, names sorted by code point.

    `dtypes` holds the names safetensors writes (`F16`, `BF16`, ...). The bytes are hashed where
    they lie: a memory-mapped file is read once and copied nowhere.
    """
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name]
        shape = ",".join(str(n) for n in tensor.shape)
        digest.update(f"{name}\0{dtypes[name]}\0{shape}\0".encode())
        if tensor.numel():
            raw = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
            digest.update(raw.numpy().data)
    return digest.hexdigest()


def short(digest: str) -> str:
    """The digits of a digest that people compare, for messages."""
    return digest[:12]


def nul_in(tensors: Iterable[str], metadata: Mapping[str, str]) -> str | None:
    """The first tensor's name, metadata key or value that holds a NUL byte.

    The digests put one between their parts. With one in a text, two files could share a seal: what
    stands behind it in a value could as well be the next key.
    """
    texts = (*sorted(tensors), *(text for entry in sorted(metadata.items()) for text in entry))
    return next((text for text in texts if "\0" in text), None)


def seal_sha256(metadata: Mapping[str, str]) -> str:
    """SHA-256 over all metadata but the seal itself and a signature, keys sorted by code point."""
    digest = hashlib.sha256()
    for key in sorted(set(metadata) - UNSEALED_KEYS):
        digest.update(f"{key}\0{metadata[key]}\0".encode())
    return digest.hexdigest()


def sealed(metadata: Mapping[str, str], tensors_digest: str) -> dict[str, str]:
    """The metadata of a safety module with version, role, tensors digest and a right seal."""
    whole = {
        **metadata,
        "msl.version": VERSION,
        "msl.role": "safety",
        "msl.tensors_sha256": tensors_digest,
    }
    whole.pop("msl.seal", None)
    return {**whole, "msl.seal": seal_sha256(whole)}


def strength_of(metadata: Mapping[str, str]) -> float:
    """The strength a safety module was sealed with. Raises ValueError unless finite and above 0."""
    text = metadata.get("msl.strength", "1.0")
    strength = float(text)
    if not (math.isfinite(strength) and strength > 0):
        raise ValueError(f"msl.strength is {text!r}; it must be a finite number above 0")
    return strength


def seal_fault(metadata: Mapping[str, str], tensors_digest: str) -> str | None:
    """Why a file is not an intact safety module, or None when its seal is right."""
    if metadata.get("msl.version") != VERSION:
        return f"msl.version is {metadata.get('msl.version')!r}, this pack reads {VERSION!r}"
    try:
        strength_of(metadata)
    except ValueError as error:
        return str(error)
    if "msl.seal" not in metadata or "msl.tensors_sha256" not in metadata:
        return "it has no seal"
    if metadata["msl.tensors_sha256"] != tensors_digest:
        return (
            f"its tensors give {short(tensors_digest)}, the file says"
            f" {short(metadata['msl.tensors_sha256'])}"
        )
    seal = seal_sha256(metadata)
    if metadata["msl.seal"] != seal:
        return f"its metadata gives {short(seal)}, the file says {short(metadata['msl.seal'])}"
    return None


def header_is_plain(header: bytes) -> bool:
    """Whether a safetensors header is written the way JSON writers write it.

    Then no byte of it can change unseen: the seal covers what the header means, and this covers its
    spelling (white space, escapes, a key given twice).
    """
    text = header.decode("utf-8").rstrip(" ")
    parsed = json.loads(text)
    return any(text == spelling for spelling in _spellings(parsed))


def _spellings(parsed: object) -> Iterable[str]:
    for separators in ((",", ":"), (", ", ": ")):
        for ascii_only in (False, True):
            yield json.dumps(parsed, separators=separators, ensure_ascii=ascii_only)
