"""The tensors of a published safe model: a file, or a folder of diffusers or transformers.

Nothing is unpickled but tensors: PyTorch's own reader refuses whatever else a pickle asks for.
"""

import json
import pickle
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import comfy.utils  # noqa: F401 (lets PyTorch's reader take what the headers of checkpoints hold)
import torch

from ..modules.errors import ModuleFileError
from ..modules.sealing import LORA_PARTS
from ..modules.tensors import read
from ..options.words import amount

Tensors: TypeAlias = Mapping[str, torch.Tensor]
PICKLES = (".ckpt", ".pt", ".pth", ".bin")
NETWORKS, ENCODERS = ("unet", "transformer"), ("text_encoder", "text_encoder_2")
# of a folder, the first that is there: whole precision before half, safetensors before pickles
STEMS = ("diffusion_pytorch_model", "model", "pytorch_model", "pytorch_lora_weights")
REFUSED = re.compile(r"GLOBAL (\S+)")  # in the words of PyTorch's reader
CONVERT = "Convert it to .safetensors where you trust it, and extract from that"


@dataclass(frozen=True)
class Published:
    """The parts of a safe model, by the folder that they lay in; a single file is the part "".

    Those in `whole` have every tensor of their network.
    """

    name: str
    parts: Mapping[str, Tensors]
    whole: frozenset[str] = frozenset()

    @property
    def is_lora(self) -> bool:
        return any(LORA_PARTS.search(key) for part in self.parts.values() for key in part)

    @property
    def count(self) -> int:
        return sum(map(len, self.parts.values()))


def published(path: Path) -> Published:
    """Read a file or a folder; tensors stay on the disk until they are looked at.

    Raises ModuleFileError for what holds no tensors, what can't be read without running code, and
    weights that are quantised.
    """
    if path.is_dir():
        found = _folder(path)
    elif path.is_file():
        found = Published(path.name, {"": _file(path)})
    else:
        raise ModuleFileError(f"{path}: there is no such file or folder.")
    for part in found.parts.values():
        _check(found.name, part)
    return found


def _folder(path: Path) -> Published:
    parts = {name: path / name for name in (*NETWORKS, *ENCODERS) if (path / name).is_dir()}
    kind = path.name if path.name in (*NETWORKS, *ENCODERS) else ""
    if not parts:
        parts = {kind: path}
    found = {name: _weights(folder) for name, folder in parts.items()}
    empty = [name for name, tensors in found.items() if not tensors]
    if len(empty) == len(found):
        raise ModuleFileError(
            f"{path.name}: no weights are in this folder. Name a folder that diffusers or"
            " transformers saved, one with model_index.json or config.json in it."
        )
    kept = {name: tensors for name, tensors in found.items() if tensors}
    return Published(path.name, kept, frozenset(kept.keys() & {*NETWORKS, ""}))


def _weights(folder: Path) -> Tensors:
    """The weights of one network, in a file or in several that an index names."""
    for stem in STEMS:
        for ending in (".safetensors", ".fp16.safetensors", *PICKLES):
            index = folder / f"{stem}{ending}.index.json"
            if index.is_file():
                return _shards(index)
            if (folder / f"{stem}{ending}").is_file():
                return _file(folder / f"{stem}{ending}")
    return {}


def _shards(index: Path) -> Tensors:
    try:
        files = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        paths = [index.parent / Path(name).name for name in sorted(files)]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModuleFileError(f"{index.name}: it lists no files of weights ({error}).") from error
    missing = [path.name for path in paths if not path.is_file()]
    if missing:
        raise ModuleFileError(
            f"{index.parent.name}: {len(missing)} of {amount(len(paths), 'file')} of weights are"
            f" missing (first: {missing[0]}). Download the folder again."
        )
    return {key: value for path in paths for key, value in _file(path).items()}


def _file(path: Path) -> Tensors:
    if path.suffix.lower() in PICKLES:
        return _pickled(path)
    tensors, metadata, _ = read(path, path.name)
    if "msl.role" in metadata:
        raise ModuleFileError(
            f"{path.name}: it is a {metadata['msl.role']} LoRA of this pack already. A safety LoRA"
            " loads as it is; a task LoRA can't become one."
        )
    return tensors


def _pickled(path: Path) -> Tensors:
    try:
        found = _loaded(path)
    except (pickle.UnpicklingError, AttributeError, ImportError) as error:
        named = REFUSED.search(str(error))
        reason = f" ({named[1]})" if named else ""
        raise ModuleFileError(
            f"{path.name}: this pickle asks for more than tensors{reason}, which can run code; it"
            f" was not opened. {CONVERT}."
        ) from error
    except (OSError, RuntimeError, EOFError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ModuleFileError(
            f"{path.name}: this is not a readable file of PyTorch ({reason}). Download it again."
        ) from error
    return dict(_flat(found.get("state_dict", found) if isinstance(found, Mapping) else {}))


def _loaded(path: Path) -> Any:
    """By PyTorch's reader of tensors alone; files of before PyTorch 1.6 can't be memory-mapped."""
    with path.open("rb") as file:
        is_zip = file.read(2) == b"PK"
    return torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)


def _flat(found: Mapping[Any, Any], before: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    """Tensors by name; ESD's own files hold a state dict of each layer in a dict of layers."""
    for key, value in found.items():
        name = f"{before}{key}"
        if isinstance(value, torch.Tensor):
            yield name, value
        elif isinstance(value, Mapping):
            yield from _flat(value, f"{name}.")


def _check(name: str, tensors: Tensors) -> None:
    if not tensors:
        raise ModuleFileError(f"{name}: no tensors are in it.")
    quantised = [
        key
        for key, value in tensors.items()
        if key.endswith(("scale_weight", "weight_scale", "scaled_fp8", "comfy_quant"))
        or value.dtype in (torch.int8, torch.uint8)
    ]
    if quantised:
        raise ModuleFileError(
            f"{name}: {len(quantised)} of {amount(len(tensors), 'tensor')} are of quantised"
            f" weights (first: {min(quantised)}), whose rounding is larger than most safe models'"
            " change. Extract from a copy in bf16, fp16 or fp32."
        )
