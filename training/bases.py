"""Which base a module was trained on: the digest of its diffusion weights, as they lie in the checkpoint's file."""

import functools
from pathlib import Path

from safetensors import safe_open

from ..modular.seal import tensors_sha256

PREFIX = "model.diffusion_model."  # of the diffusion weights in a whole checkpoint; a file of them alone has none


def diffusion_sha256(model) -> str | None:
    """Digest of the diffusion weights of a MODEL's file (see Module files), names without prefix; None when not known.

    It is taken over the file, so it is the same whatever precision a machine loads the weights in.
    """
    made_by = model.cached_patcher_init
    path = Path(made_by[1][0]) if made_by and made_by[1] and isinstance(made_by[1][0], str) else None
    if path is None or path.suffix != ".safetensors" or not path.is_file():
        return None
    stat = path.stat()
    return _sha256(path, stat.st_size, stat.st_mtime_ns)


@functools.lru_cache(maxsize=16)
def _sha256(path: Path, _size: int, _mtime_ns: int) -> str:
    with safe_open(str(path), framework="pt") as file:
        names = list(file.keys())
        chosen = [name for name in names if name.startswith(PREFIX)] or names
        tensors = {name.removeprefix(PREFIX): file.get_tensor(name) for name in chosen}
        dtypes = {name.removeprefix(PREFIX): file.get_slice(name).get_dtype() for name in chosen}
    return tensors_sha256(tensors, dtypes)
