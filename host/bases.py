"""Which base a model is and a module was trained on: the digest of the diffusion weights.

It is taken over the weights as they lie in the model's file, so it is the same whatever precision a
machine loads them in.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from safetensors import safe_open

from ..modules.files import Module
from ..modules.seal import tensors_sha256

# of the diffusion weights in a whole checkpoint; a file of them alone has none
PREFIX = "model.diffusion_model."


@dataclass(frozen=True)
class Origin:
    """The digest of a model's loaded weights W0 (docs/module-files.md), or why it is not known."""

    sha256: str | None
    unknown: str = ""

    def warnings(self, safety: Sequence[Module]) -> list[str]:
        """A line for each safety module that names another base than this one."""
        wanted = [
            (module.name, module.metadata.get("msl.base_sha256", self.sha256)) for module in safety
        ]
        return [
            f"{name} was trained on the base {digest}, and this model's base is {self.sha256}: it"
            " may suppress less here. Load its own base, or a module made for this one; the same"
            " weights in another precision count as another base."
            for name, digest in wanted
            if self.sha256 is not None and digest != self.sha256
        ]


UNKNOWN = Origin(None, "nobody looked")


def origin(model) -> Origin:
    """Where the loaded weights of a MODEL come from, without what was put on them later."""
    made_by = model.cached_patcher_init
    path = (
        Path(made_by[1][0]) if made_by and made_by[1] and isinstance(made_by[1][0], str) else None
    )
    if path is None:
        return Origin(None, "no loader of ComfyUI's own read this model from one file")
    return of_file(path)


def of_file(path: Path) -> Origin:
    """The base in a file, which is hashed once, and again when its size or times change."""
    if path.suffix != ".safetensors":
        return Origin(None, f"{path.name} is no .safetensors file")
    if not path.is_file():
        return Origin(None, f"{path.name} is no longer where it was loaded from")
    stat = path.stat()
    return Origin(_sha256(path, (stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)))


@functools.lru_cache(maxsize=16)
def _sha256(path: Path, _version: tuple[int, ...]) -> str:
    with safe_open(str(path), framework="pt") as file:
        names = list(file.keys())
        chosen = [name for name in names if name.startswith(PREFIX)] or names
        tensors = {name.removeprefix(PREFIX): file.get_tensor(name) for name in chosen}
        dtypes = {name.removeprefix(PREFIX): file.get_slice(name).get_dtype() for name in chosen}
    return tensors_sha256(tensors, dtypes)
