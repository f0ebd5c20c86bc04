"""A ComfyUI MODEL as a trainable denoiser in its own parametrisation: eps, v, flow or whatever its sampling says."""

from collections.abc import Mapping

import comfy.model_management
import comfy.sampler_helpers
import comfy.samplers
import torch
from comfy.model_patcher import ModelPatcher


class Denoiser:
    """Noising, prediction and target of one model, by the model's own rules.

    The host gives every model as denoised = a(sigma) x + b(sigma) y, with y the network's own output. The prediction and
    its target are taken in y, so a loss in y is the one the model was trained with.
    """

    def __init__(self, model: ModelPatcher):
        comfy.model_management.load_models_gpu([model], force_full_load=True)
        self.base = model.model
        self.sampling = self.base.model_sampling  # with what a node put in its place, now that the model is loaded
        self.device = model.load_device

    def latents_in(self, latents: torch.Tensor) -> torch.Tensor:
        """VAE latents (B, C, H, W) in the scale that the model works in."""
        return self.base.process_latent_in(latents.to(self.device, torch.float32))

    def sigmas(self, count: int, generator: torch.Generator) -> torch.Tensor:
        """Noise levels (count,), uniform over the model's own training steps."""
        table = self.sampling.sigmas
        return table[torch.randint(len(table), (count,), generator=generator)].to(self.device, torch.float32)

    def noised(self, clean: torch.Tensor, noise: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        """x_t of the model's forward process, for latents that `latents_in` gave."""
        return self.sampling.noise_scaling(sigma, noise.clone(), clean)

    def conditions(self, conditioning: list, latents: torch.Tensor) -> dict[str, torch.Tensor]:
        """The keyword arguments of the network for one CONDITIONING, for the whole batch of latents."""
        converted = comfy.sampler_helpers.convert_cond(conditioning[:1])
        encoded = comfy.samplers.encode_model_conds(
            self.base.extra_conds, converted, latents, self.device, "positive", latent_image=latents
        )
        batch = latents.shape[0]
        return {name: each.process_cond(batch_size=batch).cond for name, each in encoded[0]["model_conds"].items()}

    def output(self, noisy: torch.Tensor, sigma: torch.Tensor, conditions: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """The network's own output y for x_t, float32, with gradients to whatever trains."""
        denoised = self.base.apply_model(noisy, sigma, transformer_options={}, **conditions)
        return self.in_output(denoised, noisy, sigma)

    def target(self, clean: torch.Tensor, noisy: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        """What y should be: noise for eps, velocity for v and flow."""
        return self.in_output(clean, noisy, sigma)

    def in_output(self, denoised: torch.Tensor, noisy: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        """y for a denoised picture: (denoised - a x) / b."""
        a = self.sampling.calculate_denoised(sigma, torch.zeros_like(noisy), torch.ones_like(noisy))
        return (denoised.float() - a * noisy) / self._scale(sigma, noisy)

    def output_scale(self, sigma: torch.Tensor) -> torch.Tensor:
        """|b| for each noise level (B,): how far the denoised picture moves with y."""
        return self._scale(sigma, torch.ones(len(sigma), 1, device=sigma.device)).abs().flatten()

    def snr(self, sigma: torch.Tensor) -> torch.Tensor:
        """Signal-to-noise ratio for each noise level (B,): squared weight of the picture over that of the noise."""
        one, zero = torch.ones(len(sigma), 1, device=sigma.device), torch.zeros(len(sigma), 1, device=sigma.device)
        return (self.noised(one, zero, sigma) / self.noised(zero, one, sigma)).square().flatten()

    def _scale(self, sigma: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        return self.sampling.calculate_denoised(sigma, torch.ones_like(like), torch.zeros_like(like))
