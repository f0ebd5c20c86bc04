"""A ComfyUI MODEL as a trainable denoiser in its own parametrisation.

That is eps, v, flow or whatever its sampling says.
"""

from collections.abc import Mapping, Sequence

import comfy.model_management
import comfy.sampler_helpers
import comfy.samplers
import torch
from comfy.model_patcher import ModelPatcher

Conditioning = list  # ComfyUI's CONDITIONING


def check_unpatched(model: ModelPatcher) -> None:
    """Raise ValueError for a model with patches: modules are trained on the loaded weights."""
    if model.patches:
        raise ValueError(
            f"{len(model.patches)} weights of this model carry LoRAs or other patches. A module is"
            " trained on the loaded weights: take the model straight from its loader."
        )


class Denoiser:
    """Noising, prediction and target of one model, by the model's own rules.

    The host gives every model as denoised = a(sigma) x + b(sigma) y, with y the network's own
    output. The prediction and its target are taken in y, so a loss in y is the one the model was
    trained with.
    """

    def __init__(self, model: ModelPatcher):
        # As the host's trainer asks for it: all of this model on the device, and all others off.
        comfy.model_management.load_models_gpu([model], memory_required=1e20, force_full_load=True)
        self.base = model.model
        # with what a node put in its place, now that the model is loaded
        self.sampling = self.base.model_sampling
        self.device = model.load_device

    def latents_in(self, latents: torch.Tensor) -> torch.Tensor:
        """VAE latents (B, C, H, W) in the scale that the model works in."""
        return self.base.process_latent_in(_ordinary(latents).to(self.device, torch.float32))

    def sigmas(self, count: int, generator: torch.Generator) -> torch.Tensor:
        """Noise levels (count,), uniform over the model's own training steps."""
        table = self.sampling.sigmas
        return table[torch.randint(len(table), (count,), generator=generator)].to(
            self.device, torch.float32
        )

    def noised(self, clean: torch.Tensor, noise: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        """x_t of the model's forward process, for latents that `latents_in` gave."""
        return self.sampling.noise_scaling(sigma, noise.clone(), clean)

    def conditions(
        self, conditionings: Sequence[Conditioning], latents: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """The network's keyword arguments for a batch.

        There is one CONDITIONING for each of the latents (B, C, h, w). Prompts of different lengths
        are brought to one length as the host's sampler does it.
        """
        encoded = [self._encoded(each, latents[:1]) for each in conditionings]
        return {
            name: first.concat([other[name] for other in encoded[1:]])
            for name, first in encoded[0].items()
        }

    def _encoded(self, conditioning: Conditioning, latents: torch.Tensor) -> dict:
        converted = comfy.sampler_helpers.convert_cond(conditioning[:1])
        found = comfy.samplers.encode_model_conds(
            self.base.extra_conds, converted, latents, self.device, "positive", latent_image=latents
        )
        conditions = found[0]["model_conds"]
        for each in conditions.values():
            each.cond = _ordinary(each.cond)
        return {
            name: each.process_cond(batch_size=1, area=None) for name, each in conditions.items()
        }

    def empty(self, resolution: int) -> torch.Tensor:
        """Zero latents (1, C, h, w) of a square picture of `resolution` pixels."""
        side = resolution // getattr(self.base.latent_format, "spacial_downscale_ratio", 8)
        channels = self.base.latent_format.latent_channels
        extra = [1] * (getattr(self.base.latent_format, "latent_dimensions", 2) - 2)
        return torch.zeros(1, channels, *extra, side, side, device=self.device)

    def output(
        self, noisy: torch.Tensor, sigma: torch.Tensor, conditions: Mapping[str, torch.Tensor]
    ) -> torch.Tensor:
        """The network's own output y for x_t, float32, with gradients to whatever trains."""
        return self.in_output(self.denoised(noisy, sigma, conditions), noisy, sigma)

    def denoised(
        self, noisy: torch.Tensor, sigma: torch.Tensor, conditions: Mapping[str, torch.Tensor]
    ) -> torch.Tensor:
        """The picture that the model sees behind x_t."""
        # Without the wrappers of sampling: a policy on what samples does not forbid training.
        return self.base._apply_model(noisy, sigma, transformer_options={}, **conditions)

    def target(self, clean: torch.Tensor, noisy: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        """What y should be: noise for eps, velocity for v and flow."""
        return self.in_output(clean, noisy, sigma)

    def in_output(
        self, denoised: torch.Tensor, noisy: torch.Tensor, sigma: torch.Tensor
    ) -> torch.Tensor:
        """y for a denoised picture: (denoised - a x) / b."""
        a = self.sampling.calculate_denoised(sigma, torch.zeros_like(noisy), torch.ones_like(noisy))
        return (denoised.float() - a * noisy) / self._scale(sigma, noisy)

    def output_scale(self, sigma: torch.Tensor) -> torch.Tensor:
        """|b| for each noise level (B,): how far the denoised picture moves with y."""
        return self._scale(sigma, torch.ones(len(sigma), 1, device=sigma.device)).abs().flatten()

    def snr(self, sigma: torch.Tensor) -> torch.Tensor:
        """Signal-to-noise ratio for each noise level (B,).

        It is the squared weight of the picture over that of the noise.
        """
        one, zero = (
            torch.ones(len(sigma), 1, device=sigma.device),
            torch.zeros(len(sigma), 1, device=sigma.device),
        )
        return (self.noised(one, zero, sigma) / self.noised(zero, one, sigma)).square().flatten()

    def _scale(self, sigma: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        return self.sampling.calculate_denoised(
            sigma, torch.ones_like(like), torch.zeros_like(like)
        )


def _ordinary(value: object) -> object:
    """A tensor, or a list of them, that autograd can save.

    Nodes of a workflow make theirs in inference mode.
    """
    if isinstance(value, list):
        return [_ordinary(each) for each in value]
    return value.clone() if isinstance(value, torch.Tensor) and value.is_inference() else value
