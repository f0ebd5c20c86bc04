"""Module files: safetensors with a role, a digest and a seal (docs/module-files.md).

Nothing here unpickles.
"""

import functools
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from . import seal

ROLES = ("safety", "task")
PICKLE_STARTS = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")


class ModuleFileError(ValueError):
    """A module file that can't be used; the message names the file, the fault and the way out."""


@dataclass(frozen=True)
class Module:
    """One LoRA file, read and checked.

    `sha256` is the seal for a safety module and the digest of the tensors for a task module.
    """

    name: str
    role: str
    sha256: str
    metadata: Mapping[str, str]
    tensors: Mapping[str, torch.Tensor]

    @property
    def base(self) -> str:
        return self.metadata.get("msl.base", "an unnamed base")

    @property
    def sealed_strength(self) -> float:
        return seal.strength_of(self.metadata)

    @property
    def prompts(self) -> list[str]:
        """The concept in prompts: the sealed `msl.prompts`, or else `msl.concept` split at commas.

        Raises ModuleFileError when `msl.prompts` is no JSON list of texts.
        """
        return prompts_of(self.name, self.metadata)


def load_safety(path: Path, name: str, pin: str = "") -> Module:
    """Read a sealed safety module, memory-mapped.

    Raises ModuleFileError when the file is no safetensors file, has another role, or its seal is
    not right; and when `pin` (a hex SHA-256, empty for any) is not its seal.
    """
    tensors, metadata, dtypes = read(path, name)
    role = metadata.get("msl.role")
    if role is None:
        raise ModuleFileError(
            f"{name}: this file states no role (msl.role), so it is not a safety module."
            " Seal it first if you trust it."
        )
    if role != "safety":
        raise ModuleFileError(
            f"{name}: its role is {role!r}, this socket takes sealed safety modules only."
        )
    fault = seal.seal_fault(metadata, seal.tensors_sha256(tensors, dtypes))
    if fault is None and not seal.header_is_plain(_header(path)):
        fault = "its header was rewritten by hand"
    if fault is not None:
        raise ModuleFileError(
            f"{name}: the seal of this safety module is not intact: {fault}. "
            "The file was changed after it was sealed; fetch it again from where it came from."
        )
    prompts_of(name, metadata)
    digest = metadata["msl.seal"]
    wanted = pin.strip().lower()
    if wanted and wanted != digest:
        raise ModuleFileError(
            f"{name}: this workflow expects the safety module {wanted}, the file here is {digest}. "
            "Put the expected file in its place, or clear sha256 to accept this one."
        )
    return Module(name, "safety", digest, metadata, tensors)


def prompts_of(name: str, metadata: Mapping[str, str]) -> list[str]:
    """The prompts of a safety module's concept, each once (Module.prompts)."""
    text = metadata.get("msl.prompts")
    if text is None:
        return texts_of(metadata.get("msl.concept", "").split(","))
    try:
        prompts = json.loads(text)
    except json.JSONDecodeError:
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


def load_task(path: Path, name: str) -> Module:
    """Read a task module: any LoRA file that is not a safety module.

    A digest that it states must be right.
    """
    tensors, metadata, dtypes = read(path, name)
    role = metadata.get("msl.role", "task")
    if role == "safety":
        raise ModuleFileError(
            f"{name}: this is a safety module; load it with Load Safety LoRA (locked),"
            " where its strength is fixed."
        )
    if role != "task":
        raise ModuleFileError(f"{name}: its role is {role!r}; known roles are {', '.join(ROLES)}.")
    digest = seal.tensors_sha256(tensors, dtypes)
    if metadata.get("msl.tensors_sha256", digest) != digest:
        raise ModuleFileError(
            f"{name}: its tensors give {digest}, the file says {metadata['msl.tensors_sha256']}. "
            "The file was changed or damaged after it was written; fetch it again."
        )
    return Module(name, "task", digest, metadata, tensors)


def save_module(
    path: Path,
    tensors: Mapping[str, torch.Tensor],
    metadata: Mapping[str, str],
    role: str,
    overwrite: bool = False,
) -> str:
    """Write a module file atomically; return the seal for `safety`, the tensors' digest for `task`.

    Raises FileExistsError when it is already there and `overwrite` is false, ModuleFileError for a
    NUL byte in a text.
    """
    if role not in ROLES:
        raise ValueError(f"role is {role!r}; it must be one of {', '.join(ROLES)}")
    path = Path(path)
    _refuse_nul(path.name, tensors, metadata)
    if path.exists() and not overwrite:
        raise FileExistsError(f"{path} exists already; choose another name")
    whole = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    digest = seal.tensors_sha256(
        whole, {name: _dtype_name(tensor) for name, tensor in whole.items()}
    )
    if role == "safety":
        final = seal.sealed(metadata, digest)
        seal.strength_of(final)
    else:
        final = {
            **metadata,
            "msl.version": seal.VERSION,
            "msl.role": role,
            "msl.tensors_sha256": digest,
        }
    write_atomically(path, whole, final)
    return final["msl.seal"] if role == "safety" else digest


def write_atomically(
    path: Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str]
) -> None:
    """Write a safetensors file whole or not at all: temporary file beside it, fsync, rename."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")
    try:
        save_file(dict(tensors), str(temporary), metadata=dict(metadata))
        with temporary.open("r+b") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except (SafetensorError, OSError) as error:
        temporary.unlink(missing_ok=True)
        free = shutil.disk_usage(path.parent).free / 2**20 if path.parent.is_dir() else 0
        raise OSError(
            f"{path} could not be written ({error}). Its folder has {free:.0f} MB free. Make room"
            " or choose another folder; what stood there before is unchanged."
        ) from error
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def below(name: str, folder: str) -> Path:
    """The path of `name` below a loras folder.

    Raises ModuleFileError for a name that leads out of it or is no .safetensors file.
    """
    if leads_out(name):
        raise ModuleFileError(
            f"{name}: this path leads outside the loras folders; choose a file below them."
        )
    if not name.endswith(".safetensors"):
        raise ModuleFileError(
            f"{name}: modules are .safetensors files; other formats can run code when opened."
        )
    return Path(folder, name)


def leads_out(name: str) -> bool:
    """Whether a name could mean something that does not lie below the folder it is put to."""
    return bool(
        PurePosixPath(name).is_absolute()
        or PureWindowsPath(name).drive
        or ".." in name.replace("\\", "/").split("/")
    )


def find(name: str, folders: list[str]) -> Path:
    """The file `name` below one of the loras folders; a name that leads out of them is refused."""
    for path in (below(name, folder) for folder in folders):
        if path.is_file():
            return path
    raise ModuleFileError(f"{name}: no such file below the loras folders ({', '.join(folders)}).")


def content_sha256(path: Path) -> str:
    """SHA-256 of a whole file, read again when its size or time changes.

    A file that was replaced on disk is noticed by it.
    """
    stat = path.stat()
    return _content_sha256(path, stat.st_size, stat.st_mtime_ns)


@functools.lru_cache(maxsize=256)
def _content_sha256(path: Path, _size: int, _mtime_ns: int) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 22):
            digest.update(chunk)
    return digest.hexdigest()


def read(path: Path, name: str) -> tuple[dict[str, torch.Tensor], dict[str, str], dict[str, str]]:
    """Tensors (memory-mapped), metadata and dtype names of a safetensors file.

    Raises ModuleFileError when it is not one.
    """
    tensors, dtypes = {}, {}
    try:
        with safe_open(str(path), framework="pt") as file:
            metadata = file.metadata() or {}
            for key in file.keys():  # noqa: SIM118 (no mapping)
                dtypes[key] = file.get_slice(key).get_dtype()
                tensors[key] = file.get_tensor(key)
    except (SafetensorError, OSError) as error:
        raise ModuleFileError(f"{name}: {_read_fault(path, str(error))}") from error
    if not tensors:
        raise ModuleFileError(f"{name}: this safetensors file holds no tensors.")
    _refuse_nul(name, tensors, metadata)
    return tensors, metadata, dtypes


def _refuse_nul(
    name: str, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str]
) -> None:
    text = seal.nul_in(tensors, metadata)
    if text is not None:
        raise ModuleFileError(
            f"{name}: {text[:80]!r} holds a NUL byte. Names, keys and values of module files have"
            " none: with one, two files could share a seal. Write the file anew without it."
        )


def _read_fault(path: Path, reason: str) -> str:
    try:
        with path.open("rb") as file:
            start = file.read(8)
    except OSError as error:
        return f"can't be read: {error.strerror}."
    if start.startswith(PICKLE_STARTS):
        return (
            "this is a pickle with the name of a safetensors file."
            " It was not opened: a pickle can run code."
        )
    size, length = path.stat().st_size, int.from_bytes(start, "little")
    if "too large" in reason:
        return (
            "this is not a safetensors file"
            f" (it claims a header of {length} bytes, the file has {size})."
        )
    if any(
        words in reason for words in ("not fully covered", "invalid header length", "too small")
    ):
        return (
            f"the file is truncated or has bytes it should not have ({size} bytes)."
            " Copy or download it again."
        )
    return f"this is not a readable safetensors file ({reason})."


def _header(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(int.from_bytes(file.read(8), "little"))


_DTYPE_NAMES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


def _dtype_name(tensor: torch.Tensor) -> str:
    if tensor.dtype not in _DTYPE_NAMES:
        raise ValueError(f"tensors of {tensor.dtype} can't be saved in a module file")
    return _DTYPE_NAMES[tensor.dtype]
