"""The toy's base model: Stable Diffusion 1.5's UNet, small, as a ComfyUI MODEL.

It is trained here and shipped beside this file.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import comfy.latent_formats
import comfy.model_base
import comfy.model_management
import comfy.supported_models
import torch
from comfy.model_patcher import ModelPatcher
from safetensors.torch import load_file, save_file

from ...host.denoiser import Denoiser
from . import text, world

SHIPPED = Path(__file__).with_name("base.safetensors")
UNET = {
    "image_size": world.SIDE // 2,
    "in_channels": 12,
    "out_channels": 12,
    "model_channels": 64,
    "channel_mult": [1],
    "num_res_blocks": [1],
    "transformer_depth": [1],
    "transformer_depth_output": [1, 1],
    "transformer_depth_middle": 1,
    "use_spatial_transformer": True,
    "use_linear_in_transformer": False,
    "context_dim": text.WIDTH,
    "num_heads": 4,
    "num_head_channels": -1,
    "dtype": torch.float32,
}


class Pixels(comfy.latent_formats.LatentFormat):
    """Latents are the pictures: each block of 2x2 pixels is a place's channels (world.latents)."""

    latent_channels = 12
    spacial_downscale_ratio = 2


class Toy(comfy.supported_models.SD15):
    """SD1.5 as ComfyUI knows it, with another size of network and no VAE."""

    latent_format = Pixels


@dataclass(frozen=True)
class Pretraining:
    """How the base is trained: plain denoising of captioned pictures, captions dropped at times."""

    steps: int = 3400
    batch: int = 64
    pictures: int = 8000
    learning_rate: float = 2e-3
    dropped: float = 0.12
    people: float = 0.6
    concept: float = 0.35
    ema: float = 0.998
    seed: int = 5


def new_model(weights: dict[str, torch.Tensor] | None = None) -> ModelPatcher:
    """The MODEL on the CPU, with weights that are given, or seeded ones that know nothing."""
    config = Toy(UNET)
    model = comfy.model_base.BaseModel(config, device=torch.device("cpu"))
    network = model.diffusion_model
    if weights is None:
        generator = torch.Generator().manual_seed(3)
        zero = tuple(name for name, _ in network.named_parameters() if _is_last(name))
        weights = {
            name: _seeded(name, value.shape, generator, zero)
            for name, value in network.named_parameters()
        }
    network.load_state_dict({name: value.float() for name, value in weights.items()})
    cpu = torch.device("cpu")
    return ModelPatcher(model, load_device=cpu, offload_device=cpu)


def load(path: Path = SHIPPED) -> ModelPatcher:
    """The trained base."""
    return new_model(load_file(path))


def pretrain(
    settings: Pretraining, report: Callable[[int, float], None] = lambda step, loss: None
) -> ModelPatcher:
    """Train the base from nothing; the moving average of its weights is the base."""
    patcher = new_model()
    denoiser = Denoiser(patcher)
    network = denoiser.base.diffusion_model.requires_grad_(True)
    clean, captions, _ = world.pictures(
        settings.pictures, settings.seed, people=settings.people, concept=settings.concept
    )
    clean = world.latents(clean)
    table = {caption: number for number, caption in enumerate(dict.fromkeys([*captions, ""]))}
    encoded = torch.cat([text.encode(caption) for caption in table])
    numbers = torch.tensor([table[caption] for caption in captions])
    generator = torch.Generator().manual_seed(settings.seed)
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=settings.learning_rate, weight_decay=0.01
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, settings.learning_rate, settings.steps, pct_start=0.05
    )
    average = {name: value.detach().clone() for name, value in network.named_parameters()}
    for step in range(settings.steps):
        chosen = torch.randint(len(clean), (settings.batch,), generator=generator)
        prompts = numbers[chosen].clone()
        prompts[torch.rand(settings.batch, generator=generator) < settings.dropped] = table[""]
        noise = torch.randn(settings.batch, *clean.shape[1:], generator=generator)
        sigma = denoiser.sigmas(settings.batch, generator)
        noisy = denoiser.noised(clean[chosen], noise, sigma)
        output = denoiser.output(noisy, sigma, text.conditions(encoded[prompts]))
        loss = (output - noise).square().mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        decay = min(settings.ema, (step + 1) / (step + 10))
        for name, value in network.named_parameters():
            average[name].lerp_(value.detach(), 1 - decay)
        report(step + 1, loss.item())
    return new_model(average)


def save(model: ModelPatcher, path: Path) -> None:
    """Write the base in fp16."""
    save_file(
        {
            name: value.half().contiguous()
            for name, value in model.model.diffusion_model.state_dict().items()
        },
        path,
    )


def sha256(path: Path = SHIPPED) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _is_last(name: str) -> bool:
    """Layers that start at zero, as in the UNet's own code: each block's and the network's last."""
    return "out_layers.3" in name or "proj_out" in name or name.startswith("out.2")


def _seeded(
    name: str, shape: torch.Size, generator: torch.Generator, zero: tuple[str, ...]
) -> torch.Tensor:
    if len(shape) == 1:
        return torch.ones(shape) if name.endswith("weight") else torch.zeros(shape)
    weight = torch.randn(shape, generator=generator) * shape[1:].numel() ** -0.5
    return torch.zeros(shape) if name in zero else weight
