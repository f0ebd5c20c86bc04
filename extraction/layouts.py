"""Where the tensors of a published safe model lie on ComfyUI's, by the names that others give them.

The names are ComfyUI's own tables. What is read, and who writes it so:

- a checkpoint: `model.diffusion_model.*`, and its text encoder;
- a UNet or transformer of diffusers, whole or some of it, with or without a prefix `unet.`: ESD
  (arXiv 2303.07345, github.com/rohitgandikota/erasing: `diffusers-*-UNET.pt` is a whole state dict,
  esd_diffusers.py a dict of layers' state dicts, esd_sd.py the trained tensors), UCE
  (arXiv 2308.14761, github.com/rohitgandikota/unified-concept-editing: `attn2.to_k` and `to_v`);
  MACE's fused models (arXiv 2403.06135, github.com/Shilin-LU/MACE) are folders of diffusers;
- a text encoder of transformers: AdvUnlearn (arXiv 2405.15234,
  huggingface.co/OPTML-Group/AdvUnlearn).

SPM's files (arXiv 2312.16145, github.com/Con6924/SPM) have kohya's names, and those in MACE's
`lora` folder diffusers' old ones; both are LoRAs that ComfyUI reads.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import comfy.utils
import torch

from ..host.bases import diffusion_names
from ..host.comfy_types import Offset
from ..host.families import family_of
from ..host.names import Reorder
from ..host.weights import base_name
from ..modules.errors import ModuleFileError
from ..options.words import amount
from .loaded import NETWORK, Loaded
from .reading import ENCODERS, Published, Tensors

TEXT = ".transformer."
PREFIXES = ("", "unet.", "transformer.", "diffusion_model.", "module.", "text_encoder.")
BESIDE = ("position_ids", "logit_scale")  # in files of text encoders, and no weights of theirs


@dataclass(frozen=True)
class Place:
    """A weight of ComfyUI's, or rows of it, and how a tensor of a file is ordered for them."""

    key: str
    rows: Offset = None
    reorder: Reorder | None = None


@dataclass(frozen=True)
class Piece:
    """A tensor of a file, under its name there, and where it lies."""

    name: str
    place: Place
    tensor: torch.Tensor

    def on(self, weight: torch.Tensor) -> torch.Tensor:
        """The part of a weight that it stands for."""
        return weight if self.place.rows is None else weight.narrow(*self.place.rows)

    @property
    def ordered(self) -> torch.Tensor:
        return self.tensor if self.place.reorder is None else self.place.reorder(self.tensor)


def pieces_of(found: Published, base: Loaded) -> list[Piece]:
    """All tensors of a safe model, placed on a base of its shape.

    Raises ModuleFileError when one has no place or another size, and when a whole network lacks
    some.
    """
    pieces: list[Piece] = []
    for part, tensors in found.parts.items():
        if not part and _is_checkpoint(tensors):
            placed, whole = _of_checkpoint(found.name, tensors, base), True
        else:
            tables = _text_tables(base) if part in ENCODERS else _tables(base)
            placed, whole = _placed(found.name, tensors, tables, base), part in found.whole
        wrong = [piece for piece in placed if not _fits(piece, base)]
        if wrong:
            raise ModuleFileError(
                f"{found.name}: {len(wrong)} of {amount(len(placed), 'tensor')} have another size"
                f" (first: {wrong[0].name}: {tuple(wrong[0].tensor.shape)} on"
                f" {tuple(wrong[0].on(base.like(wrong[0].place.key)).shape)}). {_way_out(base)}"
            )
        network = {each.place.key for each in placed if each.place.key.startswith(NETWORK)}
        missing = base.network - network
        if whole and network and missing:
            raise ModuleFileError(
                f"{found.name}: {len(missing)} of this model's"
                f" {amount(len(base.network), 'weight')} are not in it (first: {min(missing)})."
                " It may be cut short: download it again."
            )
        pieces += placed
    return pieces


def _is_checkpoint(tensors: Tensors) -> bool:
    return any(name.startswith(("model.diffusion_model.", "cond_stage_model.")) for name in tensors)


def _of_checkpoint(name: str, tensors: Tensors, base: Loaded) -> list[Piece]:
    """As ComfyUI's loader takes a checkpoint apart, without making a model of it."""
    config, pieces = base.model.model.model_config, []
    network = {
        short: tensors[long]
        for short, long in diffusion_names(list(tensors)).items()
        if short != long
    }
    if network:
        network = config.process_unet_state_dict(network)
        pieces += _placed(name, network, [_network_table(base)], base)
    encoder = config.process_clip_state_dict(dict(tensors))
    if encoder:
        own = {key: Place(key) for key in base.sizes}
        pieces += _placed(name, encoder, [own], base)
    return pieces


def _tables(base: Loaded) -> list[Mapping[str, Place]]:
    return [_network_table(base), _diffusers_table(base), *_text_tables(base)]


def _network_table(base: Loaded) -> dict[str, Place]:
    """ComfyUI's own names."""
    return {key.removeprefix(NETWORK): Place(key) for key in base.sizes if key.startswith(NETWORK)}


def _diffusers_table(base: Loaded) -> dict[str, Place]:
    """diffusers' names of the same weights, where ComfyUI has a table of them."""
    config = base.model.model.model_config.unet_config
    rows: Mapping[str, Any] = {}
    if "num_res_blocks" in config:
        rows = comfy.utils.unet_to_diffusers(config)
    elif (table := family_of(base.model).diffusers) is not None:
        rows = table(config)
    found = _network_table(base) if rows else {}  # many transformers' weights have one name
    for theirs, target in rows.items():
        key, *how = (target,) if isinstance(target, str) else target
        if NETWORK + key in base.sizes:
            found[theirs] = Place(NETWORK + key, *how)
    return found


def _text_tables(base: Loaded) -> list[Mapping[str, Place]]:
    """transformers' names, a table for each encoder of a CLIP that has them."""
    tables: dict[str, dict[str, Place]] = {}
    for key in base.sizes:
        encoder, inside, name = key.partition(TEXT)
        if inside and not key.startswith(NETWORK):
            for each in {name, name.removeprefix("text_model.")}:
                tables.setdefault(encoder, {})[each] = Place(key)
    return list(tables.values())


def _placed(
    file: str, tensors: Tensors, tables: Sequence[Mapping[str, Place]], base: Loaded
) -> list[Piece]:
    """Each tensor, by the table and the prefix that place the most of them."""
    weights = {name: each for name, each in tensors.items() if not name.endswith(BESIDE)}

    def placed(table: Mapping[str, Place], prefix: str) -> list[Piece]:
        short = {name: name.removeprefix(prefix) for name in weights if name.startswith(prefix)}
        return [
            Piece(name, table[each], weights[name]) for name, each in short.items() if each in table
        ]

    def rank(pieces: list[Piece]) -> tuple[int, int]:
        # two encoders have the same names, and other sizes
        return len(pieces), sum(_fits(piece, base) for piece in pieces)

    best = max((placed(table, each) for table in tables for each in PREFIXES), key=rank, default=[])
    lost = weights.keys() - {piece.name for piece in best}
    if lost:
        raise ModuleFileError(
            f"{file}: {len(lost)} of {amount(len(weights), 'tensor')} have no place in this"
            f" model (first: {min(lost)}). {_way_out(base)} Of a folder, its"
            " unet, transformer or text_encoder can be chosen alone."
        )
    return best


def _fits(piece: Piece, base: Loaded) -> bool:
    try:
        return piece.on(base.like(piece.place.key)).shape == piece.tensor.shape
    except (RuntimeError, IndexError):  # rows that are not there
        return False


def _way_out(base: Loaded) -> str:
    return (
        f"The base that is loaded is {base_name(base.model)}: load the one that the safe model was"
        " made from."
    )
