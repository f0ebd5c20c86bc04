"""Where module files are found: below the loras folders and nowhere else; and what stands there."""

import functools
import hashlib
from pathlib import Path, PurePosixPath, PureWindowsPath

from .errors import ModuleFileError


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
            f"{name}: LoRAs must be .safetensors files; other formats can run code when opened."
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
    raise ModuleFileError(
        f"{name}: there is no such file. Put it into a loras folder and press R, or choose another"
        f" one. (Looked in {', '.join(folders)}.)"
    )


def content_sha256(path: Path) -> str:
    """SHA-256 (hex) of a whole file, kept until its size or its time of change differs."""
    stat = path.stat()
    return _content_sha256(path, stat.st_size, stat.st_mtime_ns)


@functools.lru_cache(maxsize=256)
def _content_sha256(path: Path, _size: int, _mtime_ns: int) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 22):
            digest.update(chunk)
    return digest.hexdigest()
