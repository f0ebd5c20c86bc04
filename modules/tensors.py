"""safetensors files, read with every fault named and written whole or not at all; no pickle."""

import shutil
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from ..storage.faults import told
from ..storage.whole import NameTooLong, whole
from . import seal
from .errors import ModuleFileError

LARGEST_HEADER = 100_000_000  # bytes; safetensors reads none that is larger
PICKLE_STARTS = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")


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
    refuse_nul(name, tensors, metadata)
    return tensors, metadata, dtypes


def metadata(path: Path, name: str) -> dict[str, str]:
    """The metadata of a safetensors file, of which only the header is read.

    Raises ModuleFileError when it is not one.
    """
    try:
        with safe_open(str(path), framework="pt") as file:
            return file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise ModuleFileError(f"{name}: {_read_fault(path, str(error))}") from error


def refuse_nul(name: str, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str]) -> None:
    text = seal.nul_in(tensors, metadata)
    if text is not None:
        raise ModuleFileError(
            f"{name}: {text[:80]!r} contains a NUL byte, with which two files could share a seal."
            " Save the file again without it."
        )


# what lies where a download went wrong
TEXTS = {b"<": "a web page", b"version ": "a Git LFS pointer"}


def _read_fault(path: Path, reason: str) -> str:
    try:
        with path.open("rb") as file:
            start = file.read(8)
    except OSError as error:
        return f"can't be read: {told(error)}."
    if start.startswith(PICKLE_STARTS):
        return (
            "this is a pickle with the name of a safetensors file."
            " It was not opened: a pickle can run code."
        )
    for text, what in TEXTS.items():
        if start.lstrip().startswith(text):
            return f"this is {what}, under the file's name. Download the file itself."
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


def header(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(min(int.from_bytes(file.read(8), "little"), LARGEST_HEADER))


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


def dtype_name(tensor: torch.Tensor) -> str:
    if tensor.dtype not in _DTYPE_NAMES:
        raise ValueError(f"tensors of {tensor.dtype} can't be saved in a LoRA file")
    return _DTYPE_NAMES[tensor.dtype]


def write_atomically(
    path: Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str]
) -> None:
    """Write a safetensors file whole or not at all; OSError says how much room there is."""
    try:
        with whole(path) as part:
            save_file(dict(tensors), str(part), metadata=dict(metadata))
    except NameTooLong:
        raise
    except (SafetensorError, OSError) as error:
        cause = error.__cause__ if isinstance(error.__cause__, OSError) else error
        free = shutil.disk_usage(path.parent).free / 2**20 if path.parent.is_dir() else 0
        raise OSError(
            f"{path} could not be written ({told(cause)}). Its folder has {free:.0f} MB free. Make"
            " room or choose another folder; the file that was there is unchanged."
        ) from error
