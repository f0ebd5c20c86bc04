"""Extract: dW = W_safe - W0, layer by layer, as a sealed safety LoRA.

What it keeps is measured: in the weights as 1 - |dW - BA|^2 / |dW|^2, and in what the network
computes of the concept's prompts.
"""

import json
import re
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from ..function.inputs import Moments
from ..host.bases import origin
from ..host.names import in_ecosystem_names, model_spec
from ..host.weights import base_name
from ..merge.entries import Entry, base_of, safety_entry
from ..modules.errors import ModuleFileError
from ..modules.files import LoraFile, load_safety, save_module
from ..modules.paths import content_sha256
from ..modules.sealing import Sealing
from ..options.words import amount
from ..storage.names import valid
from .change import Difference, difference
from .kept import EXPECTED, Patches, in_function, roles_of
from .layouts import Piece, pieces_of
from .loaded import NETWORK, Loaded
from .reading import Published, published
from .report import Json, report_of
from .settings import Extraction

MOMENTS = Moments()
# of a LoRA: the end of the name of a layer's second factor, and what stands behind a layer's name
UP, DOTS = re.compile(r"(\.lora_(up|B)|_lora\.up)\.weight$"), (".", "_lora.")
Progress = Callable[[int, int], None]  # what is done, and in all; it may raise


@dataclass(frozen=True)
class Extracted:
    """The sealed module as it was read again, and what it keeps, JSON-ready."""

    module: LoraFile
    report: Json


def extract(
    base: Loaded,
    source: Path,
    output: Path,
    how: Extraction,
    sealing: Sealing,
    *,
    moments: Moments = MOMENTS,
    progress: Progress = lambda done, total: None,
) -> Extracted:
    """Write how a safe model differs from its base as a sealed safety LoRA.

    `source` is a file or a folder (layouts.py). `moments` are sealed with it, and say where the
    network is looked at. Nothing is written before all is done. Raises ModuleFileError for a source
    that does not fit, is not finite, or differs nowhere; FileExistsError for an output that is
    there; SafetyError when something would not land.
    """
    if output.exists():
        raise FileExistsError(f"{output} exists already; choose another name.")
    found = published(source)
    pieces, differences = {}, {}
    if found.is_lora:
        tensors = _of_lora(found)
    else:
        pieces = _by_weight(pieces_of(found, base))
        differences = _differences(found, base, pieces, how, progress)
        tensors = _named(differences, base)
    name, known = base_name(base.model), origin(base.model).sha256
    about = sealing.metadata("extracted", moments.text()) | model_spec(name, valid(output.stem))
    about |= {"msl.base": name} | ({"msl.base_sha256": known} if known else {})
    module = LoraFile(found.name, "safety", "", about, tensors)
    entry = safety_entry(module, base_of(base.model, base.clip))
    changes = _changes(entry, sealing.strength)
    safe = _weights({key: pieces[key] for key in differences})
    done, arms = len(pieces), (safe, changes)

    def step(made: int) -> None:
        progress(done + made, done + EXPECTED)

    function = in_function(base, arms, moments, sealing.texts, step)
    report = report_of(differences, roles_of(base) if differences else {}, base) | {
        "source": {"name": found.name, "tensors": found.count}
        | ({"sha256": content_sha256(source)} if source.is_file() else {}),
        "form": "LoRA, as it was" if found.is_lora else how.form,
        "function": function,
    }
    about["msl.extraction"] = json.dumps(report, ensure_ascii=False)
    output.parent.mkdir(parents=True, exist_ok=True)
    save_module(output, tensors, about, "safety")
    written = load_safety(output, output.name)
    return Extracted(written, {"name": written.name, "sha256": written.sha256, **report})


def _by_weight(pieces: Sequence[Piece]) -> dict[str, list[Piece]]:
    found: dict[str, list[Piece]] = defaultdict(list)
    for piece in pieces:
        found[piece.place.key].append(piece)
    return dict(found)


def _differences(
    found: Published,
    base: Loaded,
    pieces: Mapping[str, Sequence[Piece]],
    how: Extraction,
    progress: Progress,
) -> dict[str, Difference]:
    """By weight, where there is one; one weight at a time is in memory in float32."""
    made, broken, unpatched = {}, [], []
    for number, (key, some) in enumerate(pieces.items()):
        progress(number, len(pieces) + EXPECTED)
        w0 = base.w0(key)
        if not w0.isfinite().all():
            raise ModuleFileError(
                f"The base model holds NaN or infinite values (first: {key}). Load another copy."
            )
        safe, dtypes = w0.clone(), [base.held(key)]
        for piece in some:
            value = piece.ordered.to(w0)
            broken += [piece.name] * (not bool(value.isfinite().all()))
            piece.on(safe).copy_(value)
            dtypes.append(piece.tensor.dtype)
        if broken:
            continue
        change = difference(w0, safe, _coarsest(dtypes), how)
        if change is not None:
            made[key] = change
            unpatched += [key] * (key not in base.patched)
    _check(found, broken, unpatched)
    _check_any(found, len(pieces), made)
    return made


def _check(found: Published, broken: Sequence[str], unpatched: Sequence[str]) -> None:
    if broken:
        raise ModuleFileError(
            f"{found.name}: {len(broken)} of {amount(found.count, 'tensor')} hold NaN or"
            f" infinite values (first: {min(broken)}). Download it again, or use another copy."
        )
    if unpatched:
        raise ModuleFileError(
            f"{found.name}: in ComfyUI no LoRA can change {amount(len(unpatched), 'weight')} that"
            f" it changes (first: {min(unpatched)}). This safe model works only as it is."
        )


def _check_any(found: Published, count: int, changed: Collection[str]) -> None:
    if not changed:
        raise ModuleFileError(
            f"{found.name}: nothing differs from the base in {amount(count, 'weight')}. Load the"
            " base that it was made from, not the safe model itself."
        )


def _coarsest(dtypes: Sequence[torch.dtype]) -> torch.dtype:
    return max(dtypes, key=lambda each: torch.finfo(each).eps)


def _named(differences: Mapping[str, Difference], base: Loaded) -> dict[str, torch.Tensor]:
    """The tensors under names that ComfyUI's LoRA loader reads; a UNet's as most tools do."""
    named = {}
    for key, each in differences.items():
        place = key if key.startswith(NETWORK) else f"text_encoders.{key}"
        layer, _, end = place.rpartition(".")
        for part, tensor in each.parts.items():
            if end == "bias":
                named[f"{layer}.diff_b"] = tensor
            else:
                named[f"{layer if end == 'weight' else place}.{part}"] = tensor
    config = base.model.model.model_config
    return in_ecosystem_names(named, config) if "num_res_blocks" in config.unet_config else named


def _of_lora(found: Published) -> dict[str, torch.Tensor]:
    """The tensors of a LoRA (SPM's, MACE's), all parts together, but layers that change nothing."""
    tensors = {key: value for part in found.parts.values() for key, value in part.items()}
    _check(found, [key for key, value in tensors.items() if not value.isfinite().all()], [])
    ends = {key: UP.search(key) for key, value in tensors.items() if not value.any()}
    idle = tuple(f"{key[: end.start()]}{dot}" for key, end in ends.items() if end for dot in DOTS)
    changed = {key: value for key, value in tensors.items() if not key.startswith(idle)}
    _check_any(found, len(tensors), changed)
    return changed


def _changes(entry: Entry, strength: float) -> Patches:
    """What a module puts on the weights, as ComfyUI's patches."""
    return {target: (strength, value) for target, value in entry.coverage.patches.items()}


def _weights(safe: Mapping[str, Sequence[Piece]]) -> Patches:
    """The safe model's own weights, as ComfyUI's patches: they stay where they lie in its file."""
    return {
        (piece.place.key, piece.place.rows): (1.0, ("set", (piece.ordered,)))
        for some in safe.values()
        for piece in some
    }
