"""What this pack knows of the families of models, a row each.

A family is a class of ComfyUI's (comfy.supported_models). Where models of one class are sampled
otherwise, as distilled ones are, each has a row of its own, told by a word in its file's name:
their weights have the names and shapes of the base's.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import comfy.utils
from comfy.model_patcher import ModelPatcher

from .sampling_settings import Sampling
from .weights import base_name, file_of

BUCKET = 64  # pixels, of which sides are multiples
_simple = partial(Sampling, scheduler="simple")
OTHERS = _simple(20, 4.0)  # where nobody said how


@dataclass(frozen=True)
class Family:
    """One family, or models of it that are sampled otherwise; defaults are for a family without."""

    config: str  # the class of the model's config in ComfyUI
    title: str
    sampling: Sampling = OTHERS
    size: tuple[int, int] = (1024, 1024)  # width and height it draws, in pixels
    template: str = ""  # of ComfyUI, whose KSampler says the sampling
    word: str = ""  # in the file's name; "" is what the others of the class are
    # ComfyUI's table of its layers under diffusers' names, which a trained file has then
    diffusers: Callable[..., Mapping[str, Any]] | None = None
    alpha: bool = True  # False where a trained file has none, as diffusers refuses it
    architecture: str = ""  # ModelSpec's name; "" is that of the class

    @property
    def side(self) -> int:
        """The side, in pixels, of a square as large as the pictures that it draws."""
        width, height = self.size
        return round((width * height) ** 0.5 / BUCKET) * BUCKET


def of_class(config: str, file: str = "") -> Family:
    """The family of a config's class; `file` is the name of the diffusion model's file."""
    words = re.sub(r"[^a-z0-9]+", "-", file.lower())
    rows = (each for each in FAMILIES if each.config == config and each.word in words)
    return next(rows, Family(config, config))


def family_of(model: ModelPatcher) -> Family:
    """The family of a ComfyUI MODEL."""
    file = file_of(model)
    return of_class(base_name(model), file.name if file else "")


def suiting(model: ModelPatcher, steps: int = 0, guidance: float = 0.0) -> Sampling:
    """How a ComfyUI MODEL is sampled, with other steps or another guidance if given."""
    found = family_of(model).sampling
    return replace(found, steps=steps or found.steps, guidance=guidance or found.guidance)


# A guidance of 1 is none: such models were distilled to do without, and burn with more.
NONE = 1.0
SQUARE, WIDE, LANDSCAPE = (512, 512), (832, 480), (768, 512)
FLUX = Family(
    "Flux",
    "Flux dev",
    _simple(20, NONE),
    template="flux_dev_full_text_to_image",
    diffusers=comfy.utils.flux_to_diffusers,
    alpha=False,
)
KLEIN = Family("Flux2", "Flux 2 klein", _simple(4, NONE), word="klein")
HIDREAM = Family("HiDream", "HiDream I1", Sampling(50, 5.0, "uni_pc", "simple"))
Z_IMAGE = Family(
    "ZImage",
    "Z-Image",
    Sampling(25, 4.0, "res_multistep", "simple"),
    template="image_z_image",
    diffusers=comfy.utils.z_image_to_diffusers,
    alpha=False,
)
WAN = Family(
    "WAN21_T2V",
    "Wan 2.1, and Wan 2.2 14B",
    Sampling(30, 6.0, "uni_pc", "simple"),
    WIDE,
    "text_to_video_wan",
    alpha=False,
)

# Of one class the first row counts whose word is in the file's name; the last one has no word.
FAMILIES = (
    Family(
        "SD15",
        "Stable Diffusion 1.5",
        Sampling(20, 7.0),
        SQUARE,
        architecture="stable-diffusion-v1",
    ),
    Family("SD20", "Stable Diffusion 2", Sampling(20, 7.0), SQUARE),
    Family(
        "SDXL",
        "Stable Diffusion XL",
        Sampling(25, 7.0),
        architecture="stable-diffusion-xl-v1-base",
    ),
    Family("SDXLRefiner", "Stable Diffusion XL refiner", Sampling(25, 7.0)),
    Family("Stable_Cascade_C", "Stable Cascade, stage C"),
    Family(
        "SD3",
        "Stable Diffusion 3",
        Sampling(20, 4.0, scheduler="sgm_uniform"),
        template="sd3.5_simple_example",
        diffusers=comfy.utils.mmdit_to_diffusers,
        alpha=False,
    ),
    replace(FLUX, architecture="flux-1-dev"),
    replace(FLUX, config="FluxInpaint", title="Flux fill", template=""),
    replace(
        FLUX,
        config="FluxSchnell",
        title="Flux schnell",
        sampling=_simple(4, NONE),
        template="flux_schnell",
    ),
    replace(KLEIN, title="Flux 2 klein base", word="klein-base", sampling=_simple(20, 5.0)),
    KLEIN,
    Family("Flux2", "Flux 2", _simple(20, NONE)),
    Family("Chroma", "Chroma", Sampling(26, 3.5, scheduler="beta")),
    Family("HunyuanVideo", "HunyuanVideo", _simple(20, NONE), (848, 480)),
    Family("QwenImage", "Qwen-Image", _simple(20, 2.5), template="image_qwen_image_layered"),
    replace(
        HIDREAM,
        title="HiDream I1 dev",
        word="dev",
        sampling=Sampling(28, NONE, "lcm"),
        template="hidream_i1_dev",
    ),
    replace(
        HIDREAM,
        title="HiDream I1 fast",
        word="fast",
        sampling=Sampling(16, NONE, "lcm"),
        template="hidream_i1_fast",
    ),
    replace(HIDREAM, template="hidream_i1_full"),
    Family("AuraFlow", "AuraFlow"),
    replace(
        Z_IMAGE,
        title="Z-Image Turbo",
        word="turbo",
        sampling=Sampling(8, NONE, "res_multistep", "simple"),
        template="image_z_image_turbo",
    ),
    Z_IMAGE,
    Family(
        "Lumina2",
        "Lumina Image 2",
        Sampling(30, 4.0, "res_multistep", "simple"),
        template="image_netayume_lumina_t2i",
    ),
    Family("PixArtSigma", "PixArt Sigma"),
    Family("HunyuanDiT", "Hunyuan-DiT"),
    Family("Omnigen2", "OmniGen 2"),
    # ComfyUI has the Turbo of it alone.
    Family("Krea2", "Krea 2", _simple(8, NONE), template="image_krea2_turbo_t2i"),
    WAN,
    replace(
        WAN,
        config="WAN21_I2V",
        title="Wan 2.1 from a picture",
        sampling=Sampling(20, 6.0, "uni_pc", "simple"),
        template="image_to_video_wan",
    ),
    replace(
        WAN,
        config="WAN22_T2V",
        title="Wan 2.2 5B",
        sampling=Sampling(20, 5.0, "uni_pc", "simple"),
        template="video_wan2_2_5B_ti2v",
    ),
    Family("LTXV", "LTX-Video", _simple(30, 3.0), LANDSCAPE),
    Family("GenmoMochi", "Mochi 1", size=(848, 480)),
    Family(
        "Kandinsky5",
        "Kandinsky 5",
        Sampling(50, 5.0, "euler_ancestral", "beta"),
        LANDSCAPE,
        "video_kandinsky5_t2v",
    ),
    Family(
        "Kandinsky5Image", "Kandinsky 5 Image", _simple(50, 3.5), template="image_kandinsky5_t2i"
    ),
    Family("CosmosT2V", "Cosmos 1", size=(640, 640)),
    Family("CosmosI2V", "Cosmos 1 from a picture", size=(640, 640)),
    Family("CosmosT2IPredict2", "Cosmos Predict 2"),
    Family("Anima", "Anima", _simple(30, 4.0), template="image_anima_base_v1"),
)
