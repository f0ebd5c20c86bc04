"""The models that people have, for which workflows ship: a row each, of its files.

How they are sampled, and how large, is in the row of their family (host/families.py).
"""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Download:
    """A file that a loader names, and where the frontend may fetch it."""

    name: str
    folder: str
    url: str  # of the folder it lies in

    def listed(self) -> dict:
        """As the frontend reads it from a node's properties."""
        return {"name": self.name, "url": f"{self.url}/{self.name}", "directory": self.folder}


@dataclass(frozen=True)
class Loader:
    """A node of the host's that loads one part, or changes it."""

    kind: str
    part: str  # MODEL, CLIP or VAE
    widgets: dict[str, object]
    files: tuple[Download, ...] = ()


@dataclass(frozen=True, eq=False)
class Variant:
    """One model that people have, and what is asked of it beside its family's."""

    title: str  # in the workflow's name
    family: str  # the class of its config in ComfyUI
    held: str  # the dtype of its weights in the file
    loaders: tuple[Loader, ...]  # several of one part go one after the other
    latent: tuple[str, dict] = ("EmptySD3LatentImage", {})  # its node, and what it asks beside
    video: tuple[str, dict] | None = None  # what saves a video in the place of Save Image
    training: dict[str, object] = field(default_factory=lambda: {"gradient_checkpointing": True})
    note: str = ""


HUB = "https://huggingface.co"
T5 = f"{HUB}/comfyanonymous/flux_text_encoders/resolve/main"
WAN = f"{HUB}/Comfy-Org/Wan_2.1_ComfyUI_repackaged/resolve/main/split_files"
QWEN = f"{HUB}/Comfy-Org/Qwen-Image_ComfyUI/resolve/main/split_files"


def unet(name: str, url: str) -> Loader:
    """Load Diffusion Model."""
    file = Download(name, "diffusion_models", url)
    return Loader("UNETLoader", "MODEL", {"unet_name": name, "weight_dtype": "default"}, (file,))


def text(name: str, kind: str, url: str) -> Loader:
    """Load CLIP."""
    file = Download(name, "text_encoders", url)
    widgets = {"clip_name": name, "type": kind, "device": "default"}
    return Loader("CLIPLoader", "CLIP", widgets, (file,))


def vae(name: str, url: str) -> Loader:
    """Load VAE."""
    return Loader("VAELoader", "VAE", {"vae_name": name}, (Download(name, "vae", url),))


SDXL = Download(
    "sd_xl_base_1.0.safetensors",
    "checkpoints",
    f"{HUB}/stabilityai/stable-diffusion-xl-base-1.0/resolve/main",
)
CLIP_L = Download("clip_l.safetensors", "text_encoders", T5)
T5XXL = Download("t5xxl_fp16.safetensors", "text_encoders", T5)
LESS_MEMORY = "On a card of little memory choose an fp8 type in the *weight_dtype* of its loader."

VARIANTS = (
    Variant(
        "SDXL",
        "SDXL",
        "float16",
        (Loader("CheckpointLoaderSimple", "MODEL", {"ckpt_name": SDXL.name}, (SDXL,)),),
        ("EmptyLatentImage", {}),
    ),
    Variant(
        "Flux.1 dev",
        "Flux",
        "bfloat16",
        (
            unet("flux1-dev.safetensors", f"{HUB}/Comfy-Org/flux1-dev/resolve/main"),
            Loader(
                "DualCLIPLoader",
                "CLIP",
                {
                    "clip_name1": CLIP_L.name,
                    "clip_name2": T5XXL.name,
                    "type": "flux",
                    "device": "default",
                },
                (CLIP_L, T5XXL),
            ),
            vae(
                "ae.safetensors",
                f"{HUB}/Comfy-Org/Lumina_Image_2.0_Repackaged/resolve/main/split_files/vae",
            ),
        ),
        note=f"With a *cfg* of 1 the negative prompt does nothing. {LESS_MEMORY}",
    ),
    Variant(
        "Z-Image",
        "ZImage",
        "bfloat16",
        (
            unet(
                "z_image_bf16.safetensors",
                f"{HUB}/Comfy-Org/z_image/resolve/main/split_files/diffusion_models",
            ),
            text(
                "qwen_3_4b.safetensors",
                "lumina2",
                f"{HUB}/Comfy-Org/z_image_turbo/resolve/main/split_files/text_encoders",
            ),
            vae(
                "ae.safetensors",
                f"{HUB}/Comfy-Org/z_image_turbo/resolve/main/split_files/vae",
            ),
        ),
        note="What is made for the base works with Z-Image-Turbo: 8 *steps* and a *cfg* of 1.",
    ),
    Variant(
        "Qwen-Image",
        "QwenImage",
        "float8_e4m3fn",
        (
            unet("qwen_image_fp8_e4m3fn.safetensors", f"{QWEN}/diffusion_models"),
            Loader("ModelSamplingAuraFlow", "MODEL", {"shift": 3.1}),
            text("qwen_2.5_vl_7b_fp8_scaled.safetensors", "qwen_image", f"{QWEN}/text_encoders"),
            vae("qwen_image_vae.safetensors", f"{QWEN}/vae"),
        ),
    ),
    Variant(
        "Wan 2.1",
        "WAN21_T2V",
        "float16",
        (
            unet("wan2.1_t2v_1.3B_fp16.safetensors", f"{WAN}/diffusion_models"),
            text("umt5_xxl_fp8_e4m3fn_scaled.safetensors", "wan", f"{WAN}/text_encoders"),
            vae("wan_2.1_vae.safetensors", f"{WAN}/vae"),
        ),
        ("EmptyHunyuanLatentVideo", {"length": 33}),
        (
            "SaveAnimatedWEBP",
            {"fps": 16, "lossless": False, "quality": 90, "method": "default"},
        ),
        note="Every frame of a video is a picture to the audit. It trains on pictures.",
    ),
)
