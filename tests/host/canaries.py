"""A merge of the small checkpoint that is sampled again and again, and its canary."""

import comfy.sample
import concepts
import torch
from modular_safety_lora.host.prompts import encode_texts
from modular_safety_lora.lab import assets
from modular_safety_lora.merge.on_model import KEY
from safetensors.torch import load_file


class Held:
    """A merge, and its prompts as it encodes them."""

    def __init__(self, merged):
        self.model, self.clip = merged.model, merged.clip
        self.texts = encode_texts(self.clip, ["nude", ""])
        self.safe = self.picture()

    @property
    def canary(self):
        return self.model.get_attachment(KEY).canary

    def picture(self, model=None, shape=(1, 4, 4, 4), **changed) -> torch.Tensor:
        """Two steps of the stock sampler."""
        latent = torch.zeros(shape)
        noise = comfy.sample.prepare_noise(latent, 1)
        arguments = (2, 2.0, "euler", "normal", self.texts["nude"], self.texts[""], latent)
        model = model or self.model
        return comfy.sample.sample(model, noise, *arguments, seed=1, disable_pbar=True, **changed)


def near(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Equal but for the order of sums."""
    return bool((one - other).norm() < 1e-4 * other.norm())


def safety_of(models, text: bool = True):
    tensors = load_file(models / "loras" / assets.SAFETY)
    tensors |= assets.text_lora(5) if text else {}
    return concepts.prompted(tensors, concepts.PROMPTS)
