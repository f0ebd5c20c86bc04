"""Small seeded models of ComfyUI's own classes, a twin for every family that people train."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from functools import partial

import comfy.model_management
import comfy.ops
import comfy.sample
import comfy.sd
import comfy.supported_models
import torch
from comfy.model_patcher import ModelPatcher
from comfy.taesd.taehv import TAEHV
from comfy.taesd.taesd import TAESD

from ...options.registry import by_name
from .. import assets
from . import pictures, streams, unets, videos

TWINS = by_name(
    (row.key, file.__name__, row)
    for file in (unets, streams, pictures, videos)
    for row in file.ROWS
)
CHECKPOINT_WIDTH = assets.UNET["context_dim"]
# sizes of some that read what the small checkpoint's text encoder gives
AS_CHECKPOINT: Mapping[str, Mapping[str, object]] = {
    "SD15": {"context_dim": CHECKPOINT_WIDTH},
    "SDXL": {"context_dim": CHECKPOINT_WIDTH, "adm_in_channels": CHECKPOINT_WIDTH + unets.SIZES},
    "Flux": {"context_in_dim": CHECKPOINT_WIDTH, "vec_in_dim": CHECKPOINT_WIDTH},
    "ZImage": {"cap_feat_dim": CHECKPOINT_WIDTH},
}
UNLIKE = ("SD15", "Flux", "QwenImage")  # a UNet, two streams that become one, two streams


def config_of(key: str, sizes: Mapping[str, object] | None = None):
    """The host's config of one of the TWINS, with other `sizes` than the row's if given."""
    twin = TWINS[key]
    return getattr(comfy.supported_models, twin.config)(deepcopy(twin.unet) | dict(sizes or {}))


def build(
    key: str,
    held: torch.dtype = torch.float32,
    values: torch.dtype | None = None,
    cast: torch.dtype | None = torch.float32,
    sizes: Mapping[str, object] | None = None,
) -> ModelPatcher:
    """A MODEL of one of the TWINS, held in a dtype and cast to `cast` where it computes.

    `values` rounds the weights to another dtype first: held in float32 with the values of bf16, it
    is the function that a model held in bf16 computes. Without `cast` it computes in what it holds,
    as on a GPU. `sizes` are entries of its unet_config in place of the row's.
    """
    twin = TWINS[key]
    config = config_of(key, sizes)
    config.set_inference_dtype(held, None if held == cast else cast)
    model = config.get_model({}, "", torch.device("cpu"))
    network = model.diffusion_model
    if twin.adjust:
        twin.adjust(network, comfy.ops.pick_operations(held, model.manual_cast_dtype))
        network.requires_grad_(False).eval()
    weights = assets.seeded({name: value.shape for name, value in network.state_dict().items()}, 1)
    network.load_state_dict(
        {name: value.to(values or held).to(held) for name, value in weights.items()}
    )
    return ModelPatcher(model, torch.device("cpu"), comfy.model_management.unet_offload_device())


def conditionings(key: str, count: int, seed: int = 1, tokens: int = 7) -> list:
    """Seeded CONDITIONINGs of one prompt each, as the family's stock text encode node gives them.

    A prompt has as many `tokens` as asked, where the host's text encoder does not fix their number.
    """
    draw = partial(torch.randn, generator=torch.Generator().manual_seed(seed))
    return [[TWINS[key].text.entry(draw, tokens)] for _ in range(count)]


def latents(key: str, count: int, seed: int = 1, wide: bool = False) -> list[torch.Tensor]:
    """Seeded latents (1, C, h, w) or (1, C, frames, h, w) of one picture each, square or `wide`."""
    twin, generator = TWINS[key], torch.Generator().manual_seed(seed)
    shape = twin.wide if wide else twin.latent
    return [torch.randn(1, *shape, generator=generator) for _ in range(count)]


def sampled(
    model: ModelPatcher,
    key: str,
    texts: Sequence | None = None,
    latent: torch.Tensor | None = None,
    *,
    guidance: float = 2.0,
    steps: int = 1,
) -> torch.Tensor:
    """What the stock sampler makes of seeded noise; a positive and a negative text, if given."""
    texts = texts or conditionings(key, 2)
    latent = latents(key, 1)[0] if latent is None else latent
    noise = comfy.sample.prepare_noise(latent, 1)
    arguments = (steps, guidance, "euler", "normal", *texts, torch.zeros_like(latent))
    return comfy.sample.sample(model, noise, *arguments, disable_pbar=True, seed=1)


def vae(key: str) -> comfy.sd.VAE:
    """A seeded tiny VAE (TAESD, or TAEHV for videos) for a TWIN's latents, by the host's loader."""
    channels, video = TWINS[key].latent[0], len(TWINS[key].latent) == 4
    network = TAEHV(latent_channels=channels) if video else TAESD(latent_channels=channels)
    weights = network.state_dict()
    seeded = assets.seeded({name: each.shape for name, each in weights.items() if each.ndim}, 1)
    told = {"tae_latent_channels": channels}
    return comfy.sd.VAE(sd=weights | seeded, metadata=told)  # its scale and shift as they are
