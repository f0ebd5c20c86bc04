"""A small seeded CLIP, by transformers and by ComfyUI of the same weights; and runs to measure."""

import functools
import json
from pathlib import Path

import comfy.clip_vision
import comfy.sd
import comfy.sd1_clip
import numpy as np
import torch
from modular_safety_lora.audit import about
from modular_safety_lora.audit.detectors.registry import find
from modular_safety_lora.audit.opinion import judge
from modular_safety_lora.audit.presets import PRESETS
from modular_safety_lora.audit.report import Tally, as_text
from modular_safety_lora.evaluation.quality.measure import Measured, MeasureJob
from modular_safety_lora.evaluation.quality.measure import measure as measured
from PIL import Image
from skimage import data
from transformers import (
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    CLIPProcessor,
    CLIPTokenizer,
)

WIDTH = 32
SHARED = {
    "hidden_size": WIDTH,
    "intermediate_size": 64,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "hidden_act": "quick_gelu",
    "projection_dim": WIDTH,
}
VISION = SHARED | {"image_size": 224, "patch_size": 56, "num_channels": 3}
TEXT = SHARED | {"vocab_size": 49408, "max_position_embeddings": 77, "eos_token_id": 49407}
HIT = {"class": "ANUS_EXPOSED", "score": 0.9, "box": [8, 8, 24, 24]}
PROMPTS = ("a cat", "a red car", "two dogs on a beach", "an old house", "a cup of tea", "a tree")
TWELVE = [f"{each} {place}" for place in (1, 2) for each in PROMPTS]


@functools.cache
def reference() -> tuple[CLIPModel, CLIPProcessor]:
    """transformers' CLIP, seeded, with ComfyUI's own tokenizer files."""
    torch.manual_seed(1)
    model = CLIPModel(CLIPConfig(text_config=TEXT, vision_config=VISION, projection_dim=WIDTH))
    files = Path(comfy.sd1_clip.__file__).parent / "sd1_tokenizer"
    with torch.no_grad():
        for value in model.parameters():
            if value.ndim > 1:
                value.normal_(0, 0.4 * value.shape[-1] ** -0.5)
        model.text_model.embeddings.token_embedding.weight.normal_(0, 1)
        for value in model.parameters():
            value.copy_(value.half())  # as ComfyUI holds them
    processor = CLIPProcessor(CLIPImageProcessor(), CLIPTokenizer.from_pretrained(files))
    return model.eval(), processor


def vision(**changed) -> comfy.clip_vision.ClipVisionModel:
    """ComfyUI's CLIP vision model with the reference's weights."""
    made = comfy.clip_vision.ClipVisionModel(VISION | {"model_type": "clip_vision_model"} | changed)
    own = {
        name: value
        for name, value in reference()[0].state_dict().items()
        if name.startswith(("vision_model.", "visual_projection."))
    }
    made.load_sd(own)
    return made


class Target:
    params: dict = {}
    clip = comfy.sd1_clip.SD1ClipModel
    tokenizer = comfy.sd1_clip.SD1Tokenizer


def clip(projected: bool = True) -> comfy.sd.CLIP:
    """ComfyUI's text encoder with the reference's weights, as Load CLIP makes it."""
    told = {"clip_l_model_config": TEXT}
    made = comfy.sd.CLIP(Target, model_options=told)
    own = {
        name: value
        for name, value in reference()[0].state_dict().items()
        if name.startswith("text_model.") or (projected and name.startswith("text_projection."))
    }
    encoder = made.cond_stage_model.clip_l
    encoder.transformer.text_projection.weight.data.zero_()  # as fresh memory is
    encoder.load_sd(own)
    return made


@functools.cache
def pair() -> tuple[comfy.clip_vision.ClipVisionModel, comfy.sd.CLIP]:
    """The two that fit; no test changes them."""
    return vision(), clip()


def measure(run: Path, output: Path | None = None, models=None, **more) -> Measured:
    """What a run, in its own folder or another, is measured as; by the pair or other models."""
    return measured(*(models or pair()), MeasureJob(run, output or run, **more))


def pictures(count: int = len(PROMPTS), size: int = 96, seed: int = 0) -> list[np.ndarray]:
    """Parts of photographs, uint8 (size, size, 3)."""
    photos = [data.astronaut(), data.coffee(), data.chelsea(), data.rocket()]
    rng, found = np.random.default_rng(seed), []
    for place in range(count):
        photo = photos[place % len(photos)]
        top, left = (int(rng.integers(0, each - size)) for each in photo.shape[:2])
        found.append(photo[top : top + size, left : left + size])
    return found


def changed(shown: list[np.ndarray], by: float = 0.3) -> list[np.ndarray]:
    """The same pictures, each a little darker than the one before it."""
    return [
        (each * (1 - by * place / len(shown))).astype(np.uint8) for place, each in enumerate(shown)
    ]


def run_folder(folder: Path, shown, prompts=PROMPTS, flagged=(), **more) -> Path:
    """The folder of a prompt set's audit that kept its pictures; `flagged` are places."""
    results = []
    for place, picture in enumerate(shown):
        prompt = prompts[place % len(prompts)]
        row = {"key": f"{place + 1:06d}", "prompt": prompt, "seed": place, "groups": []}
        row |= judge([HIT] if place in flagged else [], PRESETS["strict"])
        if picture is not None:
            file = folder / "pictures" / f"{place + 1:06d}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture).save(file)
            row |= {"picture": f"pictures/{file.name}", "censored": False}
        results.append(row | more)
    folder.mkdir(parents=True, exist_ok=True)
    summary = Tally(PRESETS["strict"]).of(results).summary(find())
    report = {"about": about.about(run=folder.name), "summary": summary}
    report |= {"images": results, "unreadable": []}
    (folder / "report.json").write_text(as_text(report), encoding="utf-8")
    return folder


def rewritten(folder: Path, change) -> None:
    """Change the rows of a run's report, as they stand in its file."""
    file = folder / "report.json"
    report = json.loads(file.read_text(encoding="utf-8"))
    change(report)
    file.write_text(json.dumps(report), encoding="utf-8")
