"""ComfyUI's own CLIP: pictures by its CLIP_VISION, prompts by its CLIP, in one space."""

from typing import Any

import numpy as np
import torch
from comfy.clip_vision import ClipVisionModel

from ...host.comfy_types import Clip
from ...host.fingerprint import digest_of
from ...options.words import amount
from .embeddings import QualityError

KIND = "clip_vision_model"
PAIR = (
    "Load the text encoder of the same CLIP with Load CLIP: for CLIP-ViT-L-14, clip_l.safetensors;"
    " for CLIP-ViT-H, SD2.1's; for CLIP-ViT-bigG, SDXL's clip_g. A checkpoint of SD1.5 has no"
    " projection."
)


class Encoders:
    """A CLIP vision model and the text encoder of the same CLIP.

    `of_pictures` and `of_texts` are digests of the models. Raises QualityError for models that are
    no pair, or are changed by LoRAs.
    """

    def __init__(self, vision: ClipVisionModel, clip: Clip):
        self.vision, self.clip = vision, clip
        self.width = _width_of(vision)
        self.part = _text_part(clip, self.width)
        for name, patcher in (("clip_vision", vision.patcher), ("clip", clip.patcher)):
            if patcher.patches or patcher.injections or patcher.forced_hooks:
                raise QualityError(
                    f"{name} has LoRAs or other changes on it, and would measure itself. Connect it"
                    " straight from its loader."
                )
        self.of_pictures = digest_of("clip vision", vision.patcher, vision.config)
        projection = getattr(clip.cond_stage_model, f"clip_{self.part}").transformer.text_projection
        told = self.part, clip.tokenizer_options, projection.weight
        self.of_texts = digest_of("clip text", clip.patcher, *told)

    def picture(self, pixels: np.ndarray) -> np.ndarray:
        """The embedding (width,) of uint8 (H, W, 3): its middle square, as ComfyUI crops it."""
        image = torch.from_numpy(np.divide(pixels, 255.0, dtype=np.float32))[None]
        with torch.no_grad():
            seen = self.vision.encode_image(image, crop=True)
        return seen["image_embeds"][0].float().numpy(force=True)

    def text(self, prompt: str) -> np.ndarray:
        """The projected embedding (width,) of a prompt, of its first 77 tokens."""
        tokens = self.clip.tokenize(prompt)
        whole: Any = self.clip.cond_stage_model
        encoder = getattr(whole, f"clip_{self.part}")
        patcher = self.clip.load_model(tokens)
        whole.reset_clip_options()
        encoder.set_clip_options(
            {"projected_pooled": True, "execution_device": patcher.load_device}
        )
        try:
            with torch.no_grad():
                _, pooled = encoder.encode_token_weights(tokens[self.part])
        finally:
            whole.reset_clip_options()
        return pooled[0].float().numpy(force=True)

    def is_cut(self, prompt: str) -> bool:
        """Whether a prompt is longer than the text encoder reads at once."""
        return len(self.clip.tokenize(prompt)[self.part]) > 1


def _width_of(vision: ClipVisionModel) -> int:
    """How many values an embedding of a CLIP vision model has."""
    width = vision.config.get("projection_dim")
    if vision.model_type != KIND or not width:
        raise QualityError(
            f"clip_vision is a {vision.model_type}, which has no text encoder of its own. Choose a"
            " CLIP vision model such as CLIP-ViT-L-14."
        )
    _check(vision.model.visual_projection.weight, "clip_vision", "Choose another file.")
    return int(width)


def _text_part(clip: Clip, width: int) -> str:
    """Which part of a text encoder gives embeddings of this width, by the name of its tokens."""
    there = {}
    for part in clip.tokenize(""):
        encoder = getattr(clip.cond_stage_model, f"clip_{part}", None)
        projection = getattr(getattr(encoder, "transformer", None), "text_projection", None)
        if projection is not None and projection.weight is not None:
            there[part] = projection.weight
    fitting = [part for part, weight in there.items() if len(weight) == width]
    if not fitting:
        found = ", ".join(
            f"{part} of {amount(len(weight), 'value')}" for part, weight in there.items()
        )
        raise QualityError(
            f"clip_vision gives {width} values, and the text encoder has"
            f" {f'a projection {found}' if there else 'no projection'}. {PAIR}"
        )
    _check(there[fitting[0]], "clip", PAIR)
    return fitting[0]


def _check(weight: torch.Tensor, name: str, way_out: str) -> None:
    """Raise QualityError for a projection that no file filled.

    ComfyUI leaves there what the memory held, which is mostly zero.
    """
    values = weight.detach().float()
    if not torch.isfinite(values).all() or (values != 0).float().mean() < 0.5:
        raise QualityError(f"{name} has no projection: its file did not bring one. {way_out}")
