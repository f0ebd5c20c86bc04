"""Module files: safetensors with role, digest and seal (docs/module-files.md); no pickle."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from ..options.choices import chosen
from ..storage.owned import owned
from . import seal
from .concepts import sealed_held_out, sealed_prompts
from .errors import ModuleFileError
from .tensors import dtype_name, header, read, refuse_nul, write_atomically

ROLES = ("safety", "task")


@dataclass(frozen=True)
class LoraFile:
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
        return sealed_prompts(self.name, self.metadata)

    @property
    def held_out(self) -> list[str]:
        """Prompts of the concept that it was not trained on: the sealed `msl.held_out`, or none."""
        return sealed_held_out(self.name, self.metadata)


def check_role(metadata: Mapping[str, str], wanted: str, name: str) -> None:
    """Raise ModuleFileError unless a file with this metadata is a `safety` or a `task` module.

    A task module may be any LoRA, so no role is one too.
    """
    role = metadata.get("msl.role")
    if role == wanted or (role is None and wanted == "task"):
        return
    if role is None:
        raise ModuleFileError(
            f"{name}: this LoRA is not sealed, so it is no safety LoRA. If you trust it, seal it"
            " with Seal Safety LoRA, and choose the file that this writes."
        )
    if role not in ROLES:
        raise ModuleFileError(f"{name}: its role is {role!r}; known roles are {', '.join(ROLES)}.")
    raise ModuleFileError(
        f"{name}: this is a task LoRA, and only sealed safety LoRAs go here. Load it with"
        " Load Task LoRA."
        if role == "task"
        else f"{name}: this is a safety LoRA. Load it with Load Safety LoRA (locked), where its"
        " strength is fixed."
    )


def load_safety(path: Path, name: str, pin: str = "") -> LoraFile:
    """Read a sealed safety module, memory-mapped.

    Raises ModuleFileError when the file is no safetensors file, has another role, or its seal is
    not right; and when `pin` (a hex SHA-256, empty for any) is not its seal.
    """
    tensors, metadata, dtypes = read(path, name)
    check_role(metadata, "safety", name)
    fault = seal.seal_fault(metadata, seal.tensors_sha256(tensors, dtypes))
    if fault is None and not seal.header_is_plain(header(path)):
        fault = "its header was rewritten by hand"
    if fault is not None:
        raise ModuleFileError(
            f"{name}: this safety LoRA was changed after it was sealed. Get the file again from"
            f" where it came from. (The seal is not intact: {fault}.)"
        )
    sealed_prompts(name, metadata)
    sealed_held_out(name, metadata)
    digest = metadata["msl.seal"]
    wanted = pin.strip().lower()
    if wanted and wanted != digest:
        raise ModuleFileError(
            f"{name}: this is not the safety LoRA that the workflow expects. Put the expected file"
            " in its place, or clear sha256 to accept this one. (Its seal must be"
            f" {seal.short(wanted)}, and is {seal.short(digest)}.)"
        )
    return LoraFile(name, "safety", digest, metadata, tensors)


def load_task(path: Path, name: str) -> LoraFile:
    """Read a task module: any LoRA file that is not a safety module.

    Raises ModuleFileError for another role, and for tensors that do not give the digest it states.
    """
    tensors, metadata, dtypes = read(path, name)
    check_role(metadata, "task", name)
    digest = seal.tensors_sha256(tensors, dtypes)
    if metadata.get("msl.tensors_sha256", digest) != digest:
        raise ModuleFileError(
            f"{name}: this LoRA was changed or damaged after it was written. Get the file again"
            f" from where it came from. (Its tensors give {seal.short(digest)}, the file says"
            f" {seal.short(metadata['msl.tensors_sha256'])}.)"
        )
    return LoraFile(name, "task", digest, metadata, tensors)


def save_module(
    path: Path,
    tensors: Mapping[str, torch.Tensor],
    metadata: Mapping[str, str],
    role: str,
    overwrite: bool = False,
) -> str:
    """Write a module file atomically; return the seal for `safety`, the tensors' digest for `task`.

    Raises FileExistsError when it is already there and `overwrite` is false, ModuleFileError for a
    NUL byte in a text, InUse while another run writes to the name.
    """
    role = chosen(role, ROLES, "role")
    path = Path(path)
    refuse_nul(path.name, tensors, metadata)
    whole = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    digest = seal.tensors_sha256(
        whole, {name: dtype_name(tensor) for name, tensor in whole.items()}
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
    with owned(path):
        if path.exists() and not overwrite:
            raise FileExistsError(f"{path} exists already; choose another name")
        write_atomically(path, whole, final)
    return final["msl.seal"] if role == "safety" else digest
