"""Small seeded models in the place of the host's loaders, as a node pack of a test's server.

The models that the shipped workflows name are gigabytes, and the host fixes their sizes. A loader
gives the small one of the same family here, and a CLIP whose conditionings are seeded.
"""

import zlib
from functools import partial

import comfy.sd
import torch
from comfy.sd1_clip import SD1Tokenizer
from comfy.supported_models_base import ClipTarget
from modular_safety_lora.lab import zoo
from modular_safety_lora.lab.variants import VARIANTS

import nodes

# what a loader is asked for; Flux.1 dev and Z-Image share a VAE, of the same latents
VARIANT_OF = {
    name: variant
    for variant in VARIANTS
    for loader in variant.loaders
    for name in (*(file.name for file in loader.files), loader.widgets.get("type"))
}


class Text(torch.nn.Module):
    """A text encoder without weights: seeded conditionings, as the family's own has them."""

    dtypes = (torch.float32,)

    def __init__(self, family: str, device, dtype, model_options):
        super().__init__()
        self.text = zoo.TWINS[family].text

    def set_clip_options(self, options) -> None:
        """Nothing: there are no layers to choose from."""

    def reset_clip_options(self) -> None:
        """Nothing either."""

    def encode_token_weights(self, tokens):
        """The text and the pooled text of one prompt, and the entries beside them."""
        numbers = [token for token, _ in tokens["l"][0] if token != 49407]
        seed = zlib.crc32(repr(numbers).encode())
        draw = partial(torch.randn, generator=torch.Generator().manual_seed(seed))
        text, more = self.text.entry(draw, len(numbers) + 1)
        return text, more.pop("pooled_output"), more


def clip(family: str) -> comfy.sd.CLIP:
    """The host's CLIP around the stand-in."""
    return comfy.sd.CLIP(ClipTarget(SD1Tokenizer, partial(Text, family)))


def loader(outputs: tuple[str, ...], inputs: tuple[str, ...], load) -> type:
    """A node class that takes names and gives what `load` makes of them."""

    class Loader:
        RETURN_TYPES = outputs
        FUNCTION = "load"
        CATEGORY = "stand-ins"

        @classmethod
        def INPUT_TYPES(cls):
            return {"required": {name: ("STRING", {}) for name in inputs}}

        def load(self, **names):
            return tuple(load(**names))

    return Loader


def _held(name: str):
    """The small model, held as the file of this name is; all compute in fp32 here, on the CPU."""
    variant = VARIANT_OF[name]
    return zoo.build(variant.family, getattr(torch, variant.held))


def _model(unet_name: str, weight_dtype: str):
    return [_held(unet_name)]


def _text(type: str, **names: str):  # the host's name of the input
    return [clip(VARIANT_OF[type].family)]


def _vae(vae_name: str):
    return [zoo.vae(VARIANT_OF[vae_name].family)]


def _checkpoint(ckpt_name: str):
    family = VARIANT_OF[ckpt_name].family
    return _held(ckpt_name), clip(family), zoo.vae(family)


NODE_CLASS_MAPPINGS = {}
# the host keeps its own nodes' names from packs, so that they are put in their place here
nodes.NODE_CLASS_MAPPINGS |= {
    "UNETLoader": loader(("MODEL",), ("unet_name", "weight_dtype"), _model),
    "CLIPLoader": loader(("CLIP",), ("clip_name", "type", "device"), _text),
    "DualCLIPLoader": loader(("CLIP",), ("clip_name1", "clip_name2", "type", "device"), _text),
    "VAELoader": loader(("VAE",), ("vae_name",), _vae),
    "CheckpointLoaderSimple": loader(("MODEL", "CLIP", "VAE"), ("ckpt_name",), _checkpoint),
}
