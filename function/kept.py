"""What was measured once, kept on disk under a digest of all it depends on.

It lies below ComfyUI's user folder, in one that ComfyUI's web API does not reach, signed with a key
that lies there too: a file that somebody else wrote, or one that was changed, counts as not there.
"""

import contextlib
import hashlib
import hmac
import json
import logging
import os
import secrets
import threading
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import torch
from safetensors import SafetensorError, safe_open

from ..modules.seal import tensors_sha256
from ..modules.tensors import dtype_name, write_atomically

logger = logging.getLogger(__name__)
MOST = 512 * 2**20  # bytes on disk: the files that were used longest ago go first
IN_MEMORY = 64  # of the newest, so that the same merge again reads no file
KEY_FILE, KEY_SIZE = "key", 32
_lock = threading.RLock()
_memory: OrderedDict[tuple[str, str], "Kept"] = OrderedDict()
About: TypeAlias = Mapping[str, Any]  # what JSON holds
Kept: TypeAlias = tuple[dict[str, torch.Tensor], About]


def folder() -> Path:
    """Where it is kept: a folder of ComfyUI's own, that no user of its API may read or write."""
    import folder_paths

    return Path(folder_paths.get_system_user_directory("modular_safety_lora"), "function")


def digest(**parts: object) -> str:
    """The name under which something is kept: SHA-256 of all it depends on, as JSON."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def read(name: str, place: Path | None = None) -> Kept | None:
    """What is kept under a digest; None where there is nothing, or nothing that is whole."""
    place = folder() if place is None else place
    with _lock:
        if (str(place), name) in _memory:
            _memory.move_to_end((str(place), name))
            return _memory[str(place), name]
    file = place / f"{name}.safetensors"
    if not file.is_file():
        return None
    try:
        with safe_open(str(file), framework="pt") as opened:
            metadata = dict(opened.metadata() or {})
            tensors = {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118
        key = _key(place, make=False)
        signed = key and hmac.compare_digest(
            metadata.get("signed", ""), _signed(key, name, tensors, metadata.get("about", ""))
        )
        why = "it is not signed with the key that lies there"
        about: About = json.loads(metadata["about"]) if signed else {}
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        signed, why = False, str(error)
    if not signed:
        logger.warning("%s is not as it was written (%s); it is measured again.", file, why)
        return None
    with contextlib.suppress(OSError):  # it may be read and not touched
        os.utime(file)
    _remember(place, name, (tensors, about))
    return tensors, about


def write(
    name: str, tensors: Mapping[str, torch.Tensor], about: About, place: Path | None = None
) -> bool:
    """Write under a digest; True if it is on disk."""
    place = folder() if place is None else place
    tensors = {key: each.detach().cpu().contiguous() for key, each in tensors.items()}
    _remember(place, name, (tensors, dict(about)))
    text = json.dumps(about, ensure_ascii=False)
    try:
        key = _key(place, make=True)
        signed = {"about": text, "signed": _signed(key, name, tensors, text)}
        write_atomically(place / f"{name}.safetensors", tensors, signed)
        _make_room(place)
    except OSError as error:
        logger.warning("What was measured could not be saved: %s", error)
        return False
    return True


def forget() -> None:
    """Empty the memory cache; files on disk stay."""
    with _lock:
        _memory.clear()


def _remember(place: Path, name: str, kept: Kept) -> None:
    with _lock:
        _memory[str(place), name] = kept
        while len(_memory) > IN_MEMORY:
            _memory.popitem(last=False)


def _signed(key: bytes, name: str, tensors: Mapping[str, torch.Tensor], about: str) -> str:
    held = tensors_sha256(tensors, {each: dtype_name(value) for each, value in tensors.items()})
    return hmac.new(key, f"{name}\0{held}\0{about}".encode(), "sha256").hexdigest()


def _key(place: Path, make: bool) -> bytes:
    """The key that lies there; a new one if asked, and empty if none is there that is whole."""
    file = place / KEY_FILE
    with _lock:
        key = file.read_bytes() if file.is_file() else b""
        if len(key) == KEY_SIZE:
            return key
        if not make:
            return b""
        key = secrets.token_bytes(KEY_SIZE)
        place.mkdir(parents=True, exist_ok=True)
        part = place / f"{KEY_FILE}.{secrets.token_hex(8)}"
        try:
            part.touch(0o600, exist_ok=False)
            part.write_bytes(key)
            part.replace(file)
        finally:
            part.unlink(missing_ok=True)
        return key


def _make_room(place: Path) -> None:
    """Remove the files that were used longest ago, until what is left is small enough."""
    with _lock:
        files = [(each.stat(), each) for each in place.glob("*.safetensors")]
        size = sum(about.st_size for about, _ in files)
        for about, file in sorted(files, key=lambda each: each[0].st_mtime):
            if size <= MOST:
                break
            size -= about.st_size
            file.unlink(missing_ok=True)
