"""Which base a model is and a module was trained on: the digest of the diffusion weights.

It is taken over the weights as they lie in the model's file, so it is the same whatever precision a
machine loads them in.
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from comfy.model_detection import unet_prefix_from_state_dict
from comfy.model_patcher import ModelPatcher
from safetensors import safe_open

from ..modules.files import LoraFile
from ..modules.seal import short, tensors_sha256
from . import loading
from .digest import NOT_DIGESTED
from .loading import Version, version
from .weights import file_of

# of the diffusion weights in a whole checkpoint, of which the host takes the most frequent; a file
# of them alone has none
PREFIXES = ("model.diffusion_model.", "model.model.", "net.")
TRIES = 3  # to read a file whole while nothing about it changes


@dataclass(frozen=True)
class Origin:
    """The digest of a model's loaded weights W0 (docs/module-files.md), or why it is not known."""

    sha256: str | None
    unknown: str = ""
    # the file, as it was
    read: tuple[Path, Version] | None = field(default=None, metadata=NOT_DIGESTED)

    def is_same(self, other: "Origin") -> bool:
        """Whether both are known, and one base."""
        return self.sha256 is not None and self.sha256 == other.sha256

    def warnings(self, safety: Sequence[LoraFile]) -> list[str]:
        """A line for each safety module that names another base than this one."""
        if self.sha256 is None:
            return []
        wanted = [
            (module.name, module.metadata.get("msl.base_sha256", self.sha256)) for module in safety
        ]
        return [
            f"{name} was made for another base, and may suppress less here. Load its own base, or a"
            " safety LoRA made for this one; the same weights in another precision count as another"
            f" base. (Made for {short(digest)}, this one is {short(self.sha256)}.)"
            for name, digest in wanted
            if digest != self.sha256
        ]


UNKNOWN = Origin(None, "its file was not read")
NO_FILE = Origin(None, "it was not loaded from one file by a loader of ComfyUI's own")


def origin(model: ModelPatcher) -> Origin:
    """Where the loaded weights of a MODEL come from. What was put on them later is no part of it.

    A file is hashed once, and again when it is another. Where loaders are watched it must hold what
    was loaded: a host may read more of it later.
    """
    if loading.is_watched(model):
        found = as_loaded(model)
        return NO_FILE if found is None else _still(found)
    path = file_of(model)
    return NO_FILE if path is None else of_file(path)


def watch() -> Callable[[], None]:
    """Know from now on the base of what the host's loaders read; returns what ends it."""
    return loading.watch(_read)


def as_loaded(model: ModelPatcher) -> Origin | None:
    """The base of a MODEL as it was loaded; None when nobody watched."""
    found = loading.noted(model)
    return found if isinstance(found, Origin) else None


def of_file(path: Path) -> Origin:
    """The base in a file, as it is now."""
    if path.suffix != ".safetensors":
        return Origin(None, f"{path.name} is not a .safetensors file")
    if not path.is_file():
        return Origin(None, f"{path.name} was moved or deleted after it was loaded")
    for _ in range(TRIES):
        read = version(path)
        try:
            digest = _sha256(path, read)
        except _Unknown as why:
            return Origin(None, f"{path.name} {why}")
        if version(path) == read:
            return Origin(digest, read=(path, read))
    return Origin(None, f"{path.name} is being written; load it again")


def _read(path: Path, before: Version) -> Origin:
    """The base in a file that was just loaded, and had this version before it was."""
    found = of_file(path)
    if found.read is None or found.read[1] == before:
        return found
    return Origin(None, f"{path.name} was replaced while it was loaded; load it again")


def _still(loaded: Origin) -> Origin:
    """A base as it was loaded, if its file holds it still, whatever its times and links are."""
    if loaded.read is None:
        return loaded
    path, read = loaded.read
    if path.is_file() and version(path) == read:
        return loaded
    now = of_file(path)
    if now.sha256 is None or now.is_same(loaded):
        return now
    return Origin(None, f"{path.name} was replaced after it was loaded; load it again")


class _Unknown(ValueError):
    """Why a file has no digest, for a sentence that starts with its name."""


@functools.lru_cache(maxsize=16)
def _sha256(path: Path, _version: Version) -> str:
    with safe_open(str(path), framework="pt") as file:
        names = diffusion_names(list(file.keys()))
        tensors = {short: file.get_tensor(name) for short, name in names.items()}
        dtypes = {short: file.get_slice(name).get_dtype() for short, name in names.items()}
    return tensors_sha256(tensors, dtypes)


def diffusion_names(names: Sequence[str]) -> dict[str, str]:
    """The diffusion weights that the host takes from a file, by their names without the prefix."""
    held = {
        prefix: name for name in sorted(names) for prefix in PREFIXES if name.startswith(prefix)
    }
    if len(held) > 1:
        first = " and ".join(held[prefix] for prefix in list(held)[:2])
        raise _Unknown(
            f"contains {len(held)} diffusion models ({first}), and ComfyUI loads only one. Save it"
            " again with that one alone"
        )
    prefix = unet_prefix_from_state_dict(dict.fromkeys(names))
    chosen = {name.removeprefix(prefix): name for name in names if name.startswith(prefix)}
    return chosen or {name: name for name in names}
