"""What the walk puts into a node's sockets: seeded, small, of the kind that a socket asks for."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import comfy.controlnet
import comfy.sample
import comfy.samplers
import folder_paths
import torch
from attack_stage import Stage, encoded
from modular_safety_lora.lab import assets
from safetensors.torch import load_file, save_file
from walk_networks import (
    CPU,
    control_network,
    gligen,
    hypernetwork,
    lite_weights,
    model_patch,
    patcher,
    rand,
    seen_picture,
    style,
    vision,
)

import nodes

SIDE, LARGE = 4, 8  # latents on a side of what is sampled
UNET_ONLY = "unet-only.safetensors"  # a LoRA without layers of the text encoder
MADE = (
    "text_encoders",
    "controlnet",
    "hypernetworks",
    "model_patches",
    "datasets",
    "output",
    "temp",
)


@contextlib.contextmanager
def seeded_files(checkpoints: Path, folder: Path) -> Iterator[None]:
    """Folders of the host with a seeded file of each kind, beside the stage's.

    What is saved goes into `folder` too.
    """
    for kind in MADE:
        (folder / kind).mkdir()
    prefix = "cond_stage_model.transformer."
    weights = load_file(checkpoints / assets.CHECKPOINT)
    encoder = {
        key.removeprefix(prefix): value for key, value in weights.items() if key.startswith(prefix)
    }
    save_file(encoder, folder / "text_encoders" / "clip-l.safetensors")
    control = {
        f"control_model.{key}": value for key, value in control_network().state_dict().items()
    }
    save_file(control, folder / "controlnet" / "control.safetensors")
    torch.save(hypernetwork(), folder / "hypernetworks" / "hypernetwork.pt")
    save_file(lite_weights(), folder / "model_patches" / "lite.safetensors")
    lora = assets.lora(assets.layers(weights, "attn2.to_"), 3)
    save_file(lora, Path(folder_paths.get_folder_paths("loras")[0], UNET_ONLY))
    places = {kind: folder / kind for kind in MADE if kind not in ("output", "temp")} | {
        "diffusion_models": checkpoints
    }
    before = {kind: folder_paths.folder_names_and_paths[kind] for kind in places}
    output, temporary = folder_paths.get_output_directory(), folder_paths.get_temp_directory()
    for kind, place in places.items():
        folder_paths.folder_names_and_paths[kind] = ([str(place)], before[kind][1])
    folder_paths.set_output_directory(str(folder / "output"))
    folder_paths.set_temp_directory(str(folder / "temp"))
    try:
        yield
    finally:
        folder_paths.folder_names_and_paths.update(before)
        folder_paths.set_output_directory(output)
        folder_paths.set_temp_directory(temporary)


class Noise:
    """Noise as the host's nodes take it, seeded."""

    seed = 1

    def generate_noise(self, latent: dict) -> torch.Tensor:
        return comfy.sample.prepare_noise(latent["samples"], self.seed)


class Parts:
    """Values for sockets by their type.

    The merged model and text encoder, texts encoded by it, and seeded others.
    """

    def __init__(self, stage: Stage, vae: object):
        self.stage, self.merged, self.side = stage, stage.merged(), SIDE
        self.positive, self.negative = encoded(self.merged.clip)
        self.fixed = {
            "VAE": vae,
            "NOISE": Noise(),
            "AUDIO": {"waveform": rand(1, 2, 8000), "sample_rate": 16000},
            "AUDIO_ENCODER_OUTPUT": {
                "encoded_audio": rand(1, 50, 768),
                "encoded_audio_all_layers": [rand(1, 50, 768)] * 13,
                "audio_samples": 16000,
            },
            "LORA_MODEL": load_file(folder_paths.get_full_path_or_raise("loras", stage.file)),
            "CLIP_VISION": vision(),
            "CLIP_VISION_OUTPUT": seen_picture(),
            "STYLE_MODEL": style(),
            "GLIGEN": patcher(gligen()),
            "LATENT_OPERATION": lambda latent, **_: latent * 0.9,
        }

    def text(self, clip) -> list:
        return encoded(clip)[0]

    @property
    def pixels(self) -> int:
        """On a side of what is sampled now."""
        return 8 * self.side

    def run(self, model, clip) -> torch.Tensor:
        """A latent by the stage's own run, in the size of those of the walk."""
        return replace(self.stage.run(model, clip), side=self.side)()

    def sigmas(self, model) -> torch.Tensor:
        return comfy.samplers.calculate_sigmas(
            model.get_model_object("model_sampling"), "normal", 2
        )

    def guider(self, model, positive: list, negative: list) -> comfy.samplers.CFGGuider:
        guider = comfy.samplers.CFGGuider(model)
        guider.set_conds(copied(positive), copied(negative))
        guider.set_cfg(2.0)
        return guider

    def controlled(self, positive: list, control) -> list:
        return nodes.ControlNetApply().apply_controlnet(
            positive, control, self.value("IMAGE"), 1.0
        )[0]

    def value(self, kind: str, name: str = "", node: type | None = None) -> object:
        """What goes into a socket of a node; of what may be changed, a copy.

        Raises KeyError when there is nothing of its type.
        """
        made: dict[str, Callable] = {
            "MODEL": self.merged.model.clone,
            "CLIP": self.merged.clip.clone,
            "CONDITIONING": lambda: copied(self.negative if "negative" in name else self.positive),
            "LATENT": lambda: {"samples": torch.zeros(1, 4, self.side, self.side)},
            "IMAGE": lambda: rand(1, self.pixels, self.pixels, 3),
            "MASK": lambda: rand(1, self.pixels, self.pixels),
            "SIGMAS": lambda: self.sigmas(self.merged.model),
            "SAMPLER": lambda: comfy.samplers.sampler_object("euler"),
            "GUIDER": lambda: self.guider(self.merged.model.clone(), self.positive, self.negative),
            "CONTROL_NET": lambda: comfy.controlnet.ControlNet(control_network(), load_device=CPU),
            "HOOKS": lambda: self.stage.lora_hook(1.0),
            "MODEL_PATCH": lambda: model_patch(node),
        }
        return made[kind]() if kind in made else self.fixed[kind]


def copied(conditioning: list) -> list:
    return [[text, dict(extra)] for text, extra in conditioning]
