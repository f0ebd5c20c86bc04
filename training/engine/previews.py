"""Pictures of fixed prompts and seeds, made by the merged model in training and audited."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import comfy.model_management
import torch
from PIL import Image

from ...audit import censor
from ...audit.counting import Preset
from ...audit.detectors.batches import Unjudged
from ...audit.presets import PRESETS
from ...audit.report import audit
from ...host.comfy_types import Conditioning
from ...host.families import suiting
from ...host.prompts import encode_texts
from ...host.sampling import as_picture, make_picture, out_of_memory
from ...merge.merge import Merged
from ...modules.errors import SafetyError
from ...storage.whole import write_picture
from ..keeping import Keeping

logger = logging.getLogger(__name__)
NO_PICTURES = {"images": 0, "flagged": 0, "flagged_rate_95": [0.0, 1.0]}


@dataclass(frozen=True)
class Previews:
    """What is made every `every` steps, one picture a prompt, and where the pictures go."""

    prompts: Sequence[str]
    texts: Mapping[str, Conditioning]  # of every prompt, and of ""
    vae: object
    folder: Path
    every: int = 100
    resolution: int = 512
    sampling_steps: int = 0  # 0: as suits the model's family
    guidance: float = 0.0  # the same
    seed: int = 0
    preset: Preset = PRESETS["strict"]  # of the audit

    def __post_init__(self) -> None:
        if self.every < 1:
            raise ValueError(f"preview_every is {self.every}; it must be at least 1.")
        if not self.prompts:
            raise ValueError("Previews need at least one prompt.")

    def is_due(self, step: int, last: int) -> bool:
        return step % self.every == 0 or step == last


def previews_of(
    keeping: Keeping, preset: Preset, parts: tuple[object, object], folder: Path, seed: int
) -> Previews | None:
    """The previews that a run is asked for, if it is; `parts` are CLIP and VAE."""
    if not keeping.preview_prompts:
        return None
    clip, vae = parts
    texts = encode_texts(clip, keeping.preview_prompts)
    how: dict[str, Any] = {**keeping.looks, "seed": seed, "preset": preset}
    return Previews(keeping.preview_prompts, texts, vae, folder, **how)


def look(
    made: Callable[[], Merged],
    previews: Previews,
    step: int,
    show: Callable[[Image.Image], None] = lambda picture: None,
) -> dict[str, Any]:
    """Make, audit and keep the pictures of one step.

    Returns `step`, `images`, `flagged`, `flagged_rate_95`, `files`, ..., and with `too_weak` why
    Modular Merge does not take the new safety module yet. The pictures are kept with
    what the audit counts blurred. When memory does not suffice, a picture holds no numbers, or the
    merge or the lock refuses (the new module undoes the safety module, or the operator asks for a
    signature), there are none, and `error` says why: training goes
    on.
    """
    kept: dict[str, Any] = {"step": step, "retained_safety": None}
    try:
        merged = made()
        kept["retained_safety"] = merged.report.get("retained_safety")
        kept |= {"too_weak": merged.report["too_weak"]} if "too_weak" in merged.report else {}
        with torch.no_grad():
            pictures = torch.stack(
                [_picture(merged, previews, number) for number in range(len(previews.prompts))]
            )
        report = audit((picture.numpy() for picture in pictures), previews.preset)
    except (RuntimeError, Unjudged) as error:
        told = isinstance(error, (SafetyError, Unjudged))
        if not (told or out_of_memory(error)):
            raise
        comfy.model_management.soft_empty_cache()
        reason = str(error) if told else "out of memory; try a smaller preview_size"
        logger.warning("no previews of step %s: %s", step, reason)
        return {**kept, **NO_PICTURES, "files": [], "error": reason}
    shown = [as_picture(picture) for picture in censor.apply(pictures, report, "blur")]
    files = [previews.folder / f"step-{step:06d}-{number:02d}.png" for number in range(len(shown))]
    for picture, file in zip(shown, files, strict=True):
        write_picture(file, picture)
    show(_side_by_side(shown))
    summary = report["summary"]
    counts = {name: summary[name] for name in ("images", "flagged", "flagged_rate_95")}
    return {**kept, **counts, "files": [str(file) for file in files]}


def _side_by_side(pictures: Sequence[Image.Image]) -> Image.Image:
    row = Image.new(
        "RGB", (sum(each.width for each in pictures), max(each.height for each in pictures))
    )
    left = 0
    for each in pictures:
        row.paste(each, (left, 0))
        left += each.width
    return row


def _picture(merged: Merged, previews: Previews, number: int) -> torch.Tensor:
    size = previews.resolution
    sampling = suiting(merged.model, previews.sampling_steps, previews.guidance)
    texts = previews.texts[previews.prompts[number]], previews.texts[""]
    return make_picture(
        merged.model, previews.vae, *texts, sampling, seed=previews.seed + number, size=(size, size)
    )
