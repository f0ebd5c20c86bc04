"""Seal a LoRA that someone trusts as a safety module, and say what a file is. Needs no ComfyUI."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..options.table import check, option
from ..options.words import amount
from ..storage.names import written
from .architectures import architecture_of
from .concepts import HELD_OUT, check_apart, prompts_text, texts_of
from .errors import ModuleFileError
from .files import LoraFile, load_safety, load_task, save_module
from .seal import tensors_sha256
from .short_report import KEY as REPORT
from .short_report import report_line, sealed_report
from .signing import signer
from .tensors import read

LORA_PARTS = re.compile(
    r"\.(lora_(up|down|A|B|mid)(\.\w+)?(\.weight)?|hada_w[12]_[ab]|lokr_w[12](_[ab])?"
    r"|oft_blocks|oft_diag|a[12]\.weight|b[12]\.weight|diff(_b)?|set_weight)$"
    r"|_lora\.(up|down)\.weight$"
)

SIGNATURE = "msl.signature"
NO_LORA = "no LoRA; as a base:"  # the state of other files, such as checkpoints


@dataclass(frozen=True)
class Sealing:
    """What is sealed with a LoRA.

    Raises ValueError for an empty concept, a strength out of its range, or a prompt that is held
    out too.
    """

    concept: str = option("", "What it suppresses, for people who read the file.")
    strength: float = option(
        1.0, "The strength it will always work at.", low=0.01, high=10.0, step=0.01
    )
    prompts: Sequence[str] = option(
        (),
        "Prompts of the concept, one per line: Modular Merge measures on them how much of the"
        " safety LoRA is left. Empty: the concept, split at commas.",
        lines=True,
    )
    held_out: Sequence[str] = option(
        (),
        "More prompts of the concept that it was not trained on, one per line: Probe Safety"
        " measures on them too.",
        lines=True,
        flag="--held-out-file",
    )

    def __post_init__(self) -> None:
        check(self)
        if not self.concept.strip():
            raise ValueError("The concept is empty; say what this safety LoRA suppresses.")
        check_apart(texts_of(self.held_out), self.texts)

    @property
    def texts(self) -> list[str]:
        """The prompts that are sealed; without any the concept itself, split at commas."""
        return texts_of(self.prompts) or texts_of(self.concept.split(","))

    def metadata(self, method: str, moments: str = "") -> dict[str, str]:
        """What a safety module's file says of them; `moments` is the text of `msl.moments`."""
        apart = texts_of(self.held_out)
        return {
            "msl.concept": self.concept.strip(),
            "msl.strength": repr(float(self.strength)),
            "msl.method": method,
            "msl.prompts": prompts_text(self.texts),
            **({HELD_OUT: prompts_text(apart)} if apart else {}),
            **({"msl.moments": moments} if moments else {}),
        }


def seal_file(
    path: Path,
    output: Path,
    how: Sealing,
    base: str | None = None,
    *,
    moments: str = "",
    report: str = "",
) -> str:
    """Write a sealed safety module from a LoRA file, method `imported`; its seal.

    `moments` is the text of `msl.moments`, `report` a report of it as JSON. Raises ModuleFileError
    for a file that is a module already, holds no LoRA, or values that are not finite, and for a
    report that is not of it; FileExistsError when the output is there.
    """
    tensors, metadata, dtypes = read(path, path.name)
    role = metadata.get("msl.role")
    if role is not None:
        raise ModuleFileError(
            f"{path.name}: it is a {role} LoRA of this pack already. "
            + (
                "Load it as it is, or give its report, to seal that in."
                if role == "safety"
                else "A task LoRA of this pack can't become a safety LoRA; seal its source."
            )
        )
    if not any(LORA_PARTS.search(key) for key in tensors):
        raise ModuleFileError(
            f"{path.name}: it contains no LoRA (its first tensor: {min(tensors)})."
        )
    broken = [
        key
        for key, value in tensors.items()
        if value.is_floating_point() and not value.float().isfinite().all()
    ]
    if broken:
        raise ModuleFileError(
            f"{path.name}: NaN or infinite values in {len(broken)} of its"
            f" {amount(len(tensors), 'tensor')} (first: {min(broken)}). Train it again, or download"
            " it again."
        )
    kept = {key: value for key, value in metadata.items() if not key.startswith("msl.")}
    about = how.metadata("imported", moments)
    known = base or architecture_of(tensors)
    if report:
        about[REPORT] = sealed_report(report, tensors_sha256(tensors, dtypes), about)
    output.parent.mkdir(parents=True, exist_ok=True)
    return save_module(
        output, tensors, {**kept, **about, **({"msl.base": known} if known else {})}, "safety"
    )


def seal_report(path: Path, output: Path, report: str) -> str:
    """Write a sealed safety module again with its report in the metadata; the new seal.

    All else stays as it was sealed, but a signature: it was of the former seal. Raises as
    `seal_file` does, and for a file that is not intact.
    """
    module = load_safety(path, path.name)
    kept = {key: value for key, value in module.metadata.items() if key != SIGNATURE}
    kept[REPORT] = sealed_report(report, kept["msl.tensors_sha256"], kept)
    output.parent.mkdir(parents=True, exist_ok=True)
    return save_module(output, module.tensors, kept, "safety")


def inspect(path: Path) -> dict[str, Any]:
    """What a file is and whether it is intact.

    The keys are `state`, `fault` (None when all is well) and what its metadata say.
    """
    found: dict[str, Any] = {"path": written(path), "state": "unreadable", "fault": None}
    try:
        tensors, metadata, _ = read(path, path.name)
        role = metadata.get("msl.role")
        found |= {
            "tensors": len(tensors),
            "base": metadata.get("msl.base") or architecture_of(tensors),
        }
        states = {"safety": "safety LoRA, its seal is broken", None: "LoRA without a role"}
        found["state"] = states.get(role, f"{role} LoRA")
        if role is None and not any(LORA_PARTS.search(key) for key in tensors):
            return {**found, "state": NO_LORA}
        module: LoraFile = (load_safety if role == "safety" else load_task)(path, path.name)
    except (ModuleFileError, OSError) as error:
        return {**found, "fault": str(error)}
    if module.role == "safety":
        found |= {
            "state": "sealed safety LoRA, intact",
            "strength": module.sealed_strength,
            "report": report_line(module.metadata),
            "prompts": module.prompts,
            **({"held_out": module.held_out} if module.held_out else {}),
        }
        try:
            found["signed_by"] = signer(module)
        except ModuleFileError as error:
            found["fault"] = str(error)
    words = ("concept", "method", "safety_mode", "safety_sha256", "base_sha256")
    about = {word: metadata[f"msl.{word}"] for word in words if f"msl.{word}" in metadata}
    return {**found, **about, "sha256": module.sha256}


def files_of(paths: Iterable[Path]) -> list[Path]:
    """The files that are named, and every .safetensors file below the folders that are."""
    found: list[Path] = []
    for path in paths:
        found += sorted(path.rglob("*.safetensors")) if path.is_dir() else [path]
    return found
