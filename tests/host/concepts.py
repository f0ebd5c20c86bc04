"""A safety module with prompts, a task that hides from them, and pictures of the concept."""

import json
from pathlib import Path

import comfy.sample
import merging
import torch
from modular_safety_lora.function.inputs import Moments
from modular_safety_lora.host.prompts import encode_texts
from modular_safety_lora.modules.files import LoraFile
from safetensors.torch import load_file

PROMPTS = ["nude", "naked person"]
# where the network is asked: at the size that the tests' pictures have
SMALL = {"msl.moments": Moments(resolution=64).text()}


def prompted(tensors, prompts, name: str = "safety.safetensors") -> LoraFile:
    about = {
        "msl.role": "safety",
        "msl.strength": "1.0",
        "msl.base": "SD15",
        "msl.prompts": json.dumps(prompts),
        **SMALL,
    }
    sha256 = f"{name}-{prompts}-{merging.digest(tensors)}"
    return LoraFile(name, "safety", sha256, about, tensors)


def dead(deltas, texts, part: float = 1.0) -> LoraFile:
    """A task that takes part of the safety change on these tokens' span, and repays it off them."""
    _, sizes, directions = torch.linalg.svd(
        torch.cat([texts[text] for text in (*PROMPTS, "")]), full_matrices=False
    )
    span = directions[sizes / sizes[0] > 1e-6]
    tensors = {}
    for name, delta in deltas.items():
        on = delta @ span.T @ span
        off = delta - on
        change = part * (on.square().sum() / off.square().sum() * off - on)
        tensors[f"diffusion_model.{name}.diff"] = change.float()
    return merging.task(tensors, "dead.safetensors")


def picture(model, clip, text: str = "nude"):
    latent = torch.zeros(1, 4, 4, 4)
    positive, negative = (
        clip.encode_from_tokens_scheduled(clip.tokenize(each)) for each in (text, "")
    )
    noise = comfy.sample.prepare_noise(latent, 1)
    return comfy.sample.sample(
        model,
        noise,
        2,
        2.0,
        "euler",
        "normal",
        positive,
        negative,
        latent,
        seed=1,
        disable_pbar=True,
    )


def tokens_of(clip) -> dict[str, torch.Tensor]:
    """What the host's encoder gives, each text by a call of its own: (tokens, width) in float64."""
    made = encode_texts(clip, [*PROMPTS, "a gun"])
    return {text: conds[0][0][0].double() for text, conds in made.items()}


def text_layers_of(model) -> dict[str, torch.Size]:
    """The keys and values of the small checkpoint's cross-attention."""
    names = (
        key.removeprefix("diffusion_model.").removesuffix(".weight")
        for key in model.model.state_dict()
    )
    return merging.shapes(
        model, *(name for name in names if name.endswith(("attn2.to_k", "attn2.to_v")))
    )


def prompted_part(file: Path, layers) -> tuple[LoraFile, dict[str, torch.Tensor]]:
    """These layers of a safety module's file, with prompts; their changes in float64."""
    tensors = load_file(file)
    kept = {
        key: value for key, value in tensors.items() if any(f".{name}." in key for name in layers)
    }
    deltas = {
        name: (
            kept[f"diffusion_model.{name}.lora_B.weight"].double()
            @ kept[f"diffusion_model.{name}.lora_A.weight"].double()
        )
        for name in layers
    }
    return prompted(kept, PROMPTS), deltas
