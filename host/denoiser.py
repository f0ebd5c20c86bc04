"""A ComfyUI MODEL as a trainable denoiser in its own parametrisation (eps, v or flow)."""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias, TypeVar

import comfy.model_management
import comfy.sampler_helpers
import comfy.samplers
import torch
from comfy.model_patcher import ModelPatcher

from ..options.words import amount
from .comfy_types import Conditioning, Conditions
from .latents import dimensions_of, empty_latents, pixels_of
from .lending import load_for
from .structure import roles_of

# a side of the picture that a network is tried with: the first number of latents that it takes,
# and where latents are pixels, which networks read in patches, at least this many
SMALL, PIXELS = (8, 40), 64

Found = TypeVar("Found")
# of x_t, its noise level and conditions
Trial: TypeAlias = Callable[[torch.Tensor, torch.Tensor, Conditions], Found]


class Denoiser:
    """Noising, prediction and target of one model, by the model's own rules.

    The host gives every model as denoised = a(sigma) x + b(sigma) y, with y the network's own
    output. The prediction and its target are taken in y, so a loss in y is the one the model was
    trained with.
    """

    def __init__(self, model: ModelPatcher, batch: Sequence[int] = ()):
        """Load a model: for a batch of this shape as the host's sampler does, or else whole."""
        if batch:
            load_for(model, batch)
        else:
            # as the host's trainer asks for it: all of it on the device, and all others off
            comfy.model_management.load_models_gpu(
                [model], memory_required=1e20, force_full_load=True
            )
        self._take(model)

    @classmethod
    def of_loaded(cls, model: ModelPatcher) -> "Denoiser":
        """A Denoiser of a model that is loaded already; loads nothing."""
        made = cls.__new__(cls)
        made._take(model)
        return made

    def _take(self, model: ModelPatcher) -> None:
        self.base = model.model
        # with what a node put in its place, now that the model is loaded
        self.sampling = self.base.model_sampling
        self.device = model.load_device

    def as_latents(self, latents: torch.Tensor) -> torch.Tensor:
        """Latents (B, C, h, w); for a model of videos (B, C, frames, h, w).

        There, four dimensions are one frame. Raises ValueError for latents of another model.
        """
        space = self.base.latent_format
        picture = dimensions_of(space)
        if (latents.ndim, picture) == (4, 3):
            latents = latents.unsqueeze(2)
        if latents.ndim != 2 + picture or latents.shape[1] != space.latent_channels:
            raise ValueError(
                f"These latents (shape {tuple(latents.shape)}) are not for this model, which needs"
                f" {amount(space.latent_channels, 'channel')} and {picture} dimensions after them."
                " Encode the pictures with the VAE that belongs to the model."
            )
        return latents

    def latents_in(self, latents: torch.Tensor) -> torch.Tensor:
        """Latents in the scale that the model works in, whole and in float32."""
        latents = _ordinary(self.as_latents(latents))
        return self.base.process_latent_in(latents.to(self.device, torch.float32))

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
    ) -> Conditions:
        """The network's keyword arguments for a batch.

        There is one CONDITIONING for each of the latents (B, C, h, w). Prompts whose encodings have
        one shape go through the network together, others one after another: nothing is padded.
        """
        groups: list[tuple[list[int], list[dict[str, Any]]]] = []
        for number, each in enumerate(conditionings):
            encoded = self._encoded(each, latents[:1])
            for numbers, members in groups:
                if _alike(members[0], encoded):
                    numbers.append(number)
                    members.append(encoded)
                    break
            else:
                groups.append(([number], [encoded]))
        return [
            (
                numbers,
                {
                    name: first.concat([other[name] for other in members[1:]])
                    for name, first in members[0].items()
                },
            )
            for numbers, members in groups
        ]

    def _encoded(self, conditioning: Conditioning, latents: torch.Tensor) -> dict[str, Any]:
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
        return self._empty(resolution // pixels_of(self.base.latent_format))

    def _empty(self, side: int) -> torch.Tensor:
        return empty_latents(self.base.latent_format, side, side).to(self.device)

    def output(
        self, noisy: torch.Tensor, sigma: torch.Tensor, conditions: Conditions
    ) -> torch.Tensor:
        """The network's own output y for x_t, float32, with gradients to whatever trains."""
        return self.in_output(self.denoised(noisy, sigma, conditions), noisy, sigma)

    def denoised(
        self, noisy: torch.Tensor, sigma: torch.Tensor, conditions: Conditions
    ) -> torch.Tensor:
        """The picture that the model sees behind x_t."""
        if len(conditions) == 1:
            return self._apply(noisy, sigma, conditions[0][1])
        order = [number for numbers, _ in conditions for number in numbers]
        parts = [
            self._apply(noisy[numbers], sigma[numbers], group) for numbers, group in conditions
        ]
        return torch.cat(parts)[torch.tensor(order).argsort()]

    def _apply(
        self, noisy: torch.Tensor, sigma: torch.Tensor, group: Mapping[str, Any]
    ) -> torch.Tensor:
        # Without the wrappers of sampling: a policy on what samples does not forbid training.
        return self.base._apply_model(noisy, sigma, transformer_options={}, **group)

    def roles(self, conditioning: Conditioning) -> dict[str, str]:
        """The role of each layer (structure.py), seen in a pass over a small empty picture."""

        def seen(
            noisy: torch.Tensor, sigma: torch.Tensor, conditions: Conditions
        ) -> dict[str, str]:
            return roles_of(self.base, noisy, sigma, conditions[0][1])

        return self.on_a_small_picture(seen, conditioning)

    def tried(self, conditioning: Conditioning) -> torch.Tensor:
        """The network's own output for a small empty picture."""
        return self.on_a_small_picture(self.output, conditioning)

    def on_a_small_picture(self, what: Trial[Found], conditioning: Conditioning) -> Found:
        """What `what` makes of an empty picture, as small as the network takes."""
        least = PIXELS if pixels_of(self.base.latent_format) == 1 else 0
        *smaller, largest = (max(side, least) for side in SMALL)
        for side in smaller:
            with contextlib.suppress(ZeroDivisionError):  # PixArt's grid of a small picture
                return self._at(side, what, conditioning)
        return self._at(largest, what, conditioning)

    def _at(self, side: int, what: Trial[Found], conditioning: Conditioning) -> Found:
        noisy = self._empty(side)
        sigma = self.sampling.sigmas[-1:].to(self.device, torch.float32)
        return what(noisy, sigma, self.conditions([conditioning], noisy))

    def target(self, clean: torch.Tensor, noisy: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        """What y should be: noise for eps, velocity for v and flow."""
        return self.in_output(clean, noisy, sigma)

    def in_output(
        self, denoised: torch.Tensor, noisy: torch.Tensor, sigma: torch.Tensor
    ) -> torch.Tensor:
        """y for a denoised picture: (denoised - a x) / b."""
        return in_output(self.sampling, denoised, noisy, sigma)

    def output_scale(self, sigma: torch.Tensor) -> torch.Tensor:
        """|b| for each noise level (B,): how far the denoised picture moves with y."""
        one = torch.ones(len(sigma), 1, device=sigma.device)
        return _scale(self.sampling, sigma, one).abs().flatten()

    def snr(self, sigma: torch.Tensor) -> torch.Tensor:
        """Signal-to-noise ratio for each noise level (B,): squared weights, picture over noise."""
        one, zero = (
            torch.ones(len(sigma), 1, device=sigma.device),
            torch.zeros(len(sigma), 1, device=sigma.device),
        )
        return (self.noised(one, zero, sigma) / self.noised(zero, one, sigma)).square().flatten()


def in_output(
    sampling: Any, denoised: torch.Tensor, noisy: torch.Tensor, sigma: torch.Tensor
) -> torch.Tensor:
    """y for a denoised picture, by a model's own sampling: (denoised - a x) / b."""
    a = sampling.calculate_denoised(sigma, torch.zeros_like(noisy), torch.ones_like(noisy))
    return (denoised.float() - a * noisy) / _scale(sampling, sigma, noisy)


def _scale(sampling: Any, sigma: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    return sampling.calculate_denoised(sigma, torch.ones_like(like), torch.zeros_like(like))


def _alike(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether the conditions of two prompts can be one batch as they are."""
    return one.keys() == other.keys() and all(
        value.can_concat(other[name]) and value.size() == other[name].size()
        for name, value in one.items()
    )


def _ordinary(value: Any) -> Any:
    """A tensor, or a list, that autograd can save: nodes make theirs in inference mode."""
    if isinstance(value, list):
        return [_ordinary(each) for each in value]
    return value.clone() if isinstance(value, torch.Tensor) and value.is_inference() else value
