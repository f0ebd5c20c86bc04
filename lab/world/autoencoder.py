"""The autoencoder: the host's TAESD, trained on the emoji pictures, with few of its blocks alive.

A block of TAESD whose convolutions are zero passes what is not negative on as it is: it is a ReLU.
So blocks are left out while training and in what is shipped, and are zeros in the checkpoint.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn

from ...emoji.autoencoder import CHANNELS
from .resumable import Kept

SCALE, SHIFT = 1.5305, 0.0609  # of SD3's latents: the diffusion model sees mean 0, variance 1
ALIVE = {  # which blocks of the host's Encoder and Decoder are trained, by their place
    "taesd_encoder": (3, 8, 9, 11, 12, 13),
    "taesd_decoder": (3, 4, 5, 8, 9, 13),
}
NOISE = 0.15  # on the latents while training: what the diffusion model makes is not exact
CROP = 48  # pixels


class Whiten(nn.Module):
    """Latents of mean 0 and variance 1 in each channel; running figures outside training."""

    def __init__(self, channels: int = CHANNELS):
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, affine=False, momentum=0.02)

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        return self.norm(latents)


def bare() -> nn.Module:
    """The host's TAESD with ReLUs where its blocks are not alive, freshly initialised."""
    from comfy.taesd.taesd import TAESD, Block

    model = TAESD(latent_channels=CHANNELS)
    for half, alive in ALIVE.items():
        layers = getattr(model, half)
        for place, layer in enumerate(layers):
            if isinstance(layer, Block) and place not in alive:
                layers[place] = nn.ReLU()
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    for block in model.modules():
        if isinstance(block, Block):  # begins as what it skips
            nn.init.zeros_(block.conv[-1].weight)
    nn.init.normal_(model.taesd_decoder[-1].weight, std=0.01)
    nn.init.constant_(model.taesd_decoder[-1].bias, 0.8)  # pictures are mostly white
    return model


def train(
    pictures: np.ndarray,
    steps: int,
    *,
    rate: float = 1e-3,
    batch: int = 8,
    seed: int = 0,
    report: Callable[[int, float], None] = lambda step, loss: None,
    state: Path | None = None,
) -> nn.Module:
    """Train on crops of pictures, uint8 (N, side, side, 3). Goes on from `state` where it is."""
    torch.manual_seed(seed)
    model, whiten = bare(), Whiten()
    optimizer = torch.optim.AdamW(model.parameters(), rate, betas=(0.9, 0.99), weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, steps, pct_start=0.05)
    data = torch.from_numpy(pictures)
    kept = Kept(state, model=model, whiten=whiten, optimizer=optimizer, schedule=schedule)
    for step in range(kept.begin(), steps):
        draw = np.random.default_rng((seed, step))
        crops = []
        for number in draw.integers(0, len(data), batch):
            x, y = draw.integers(0, data.shape[1] - CROP + 1, 2)
            crop = data[number, y : y + CROP, x : x + CROP]
            crops.append(crop.flip(1) if draw.random() < 0.5 else crop)
        target = torch.stack(crops).permute(0, 3, 1, 2).float() / 255
        latents = whiten(model.taesd_encoder(target))
        noise = torch.from_numpy(draw.standard_normal(latents.shape, dtype=np.float32))
        drawn = model.taesd_decoder(latents + NOISE * float(draw.random()) * noise)
        loss = loss_of(drawn, target)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        report(step + 1, loss.item())
        kept.save(step + 1)
    return fold(model, whiten)


def loss_of(drawn: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Squared and absolute error, and that of the differences between neighbours (edges)."""
    error = drawn - target
    edges = error.diff(dim=2).abs().mean() + error.diff(dim=3).abs().mean()
    return 4 * error.square().mean() + 0.5 * error.abs().mean() + 0.5 * edges


def fold(model: nn.Module, whiten: Whiten) -> nn.Module:
    """Put the whitening into the encoder's last layer, and the scale of SD3's latents in."""
    last, norm = model.taesd_encoder[-1], whiten.norm
    gain = (norm.running_var + norm.eps).rsqrt()
    with torch.no_grad():
        last.weight.mul_(gain[:, None, None, None])
        last.bias.copy_((last.bias - norm.running_mean) * gain)
        model.vae_scale.fill_(SCALE)
        model.vae_shift.fill_(SHIFT)
    return model.eval()


def through(model: nn.Module, pictures: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """Pictures, uint8 (N, side, side, 3), and what both halves make: (N, 3, side, side) in 0..1."""
    target = torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 255
    with torch.no_grad():
        return target, model.taesd_decoder(model.taesd_encoder(target)).clamp(0, 1)


def psnr(model: nn.Module, pictures: np.ndarray) -> float:
    """Decibels of pictures that went through both halves, uint8 (N, side, side, 3)."""
    target, drawn = through(model, pictures)
    return float(-10 * torch.log10((drawn - target).square().mean(dim=(1, 2, 3))).mean())
