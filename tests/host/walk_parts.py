"""What the walk puts into a node's sockets: seeded, small, of the kind that a socket asks for."""

import contextlib
import functools
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import comfy.cldm.cldm
import comfy.clip_vision
import comfy.controlnet
import comfy.gligen
import comfy.ldm.anima.lllite as lite
import comfy.ldm.wan.uni3c
import comfy.ops
import comfy.sample
import comfy.samplers
import comfy.sd
import comfy.t2i_adapter.adapter
import folder_paths
import torch
from attacks import Stage
from comfy.model_patcher import ModelPatcher
from modular_safety_lora.lab import assets
from safetensors.torch import load_file, save_file

import nodes

CPU, PLAIN = torch.device("cpu"), comfy.ops.disable_weight_init
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
VISION = {
    "hidden_size": 64,
    "image_size": 224,
    "intermediate_size": 64,
    "num_attention_heads": 4,
    "num_channels": 3,
    "num_hidden_layers": 2,
    "patch_size": 56,
    "projection_dim": 768,
    "hidden_act": "quick_gelu",
    "model_type": "clip_vision_model",
}


def rand(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(1))


def seeded(network: torch.nn.Module) -> torch.nn.Module:
    """The network with random weights: the host leaves uninitialised what no file gives."""
    generator = torch.Generator().manual_seed(1)
    for value in network.requires_grad_(False).eval().parameters():
        value.copy_(
            torch.randn(value.shape, generator=generator)
            * 0.5
            * max(value.shape[1:].numel(), 1) ** -0.5
        )
    return network


def patcher(network: torch.nn.Module) -> ModelPatcher:
    return ModelPatcher(seeded(network), load_device=CPU, offload_device=CPU)


@functools.cache
def control_network() -> torch.nn.Module:
    """A ControlNet of the checkpoint's shape."""
    shape = {
        key: value
        for key, value in assets.UNET.items()
        if key not in ("out_channels", "transformer_depth_output")
    }
    return seeded(comfy.cldm.cldm.ControlNet(**shape, hint_channels=3, operations=PLAIN))


def gligen() -> comfy.gligen.Gligen:
    """GLIGEN for the transformers of the checkpoint, all of 320 channels."""
    count = sum(assets.UNET["transformer_depth"]) + sum(assets.UNET["transformer_depth_output"]) + 1
    blocks = [comfy.gligen.GatedSelfAttentionDense(320, 768, 8, 40) for _ in range(count)]
    return comfy.gligen.Gligen(blocks, comfy.gligen.PositionNet(768, 768), 768)


def style() -> comfy.sd.StyleModel:
    return comfy.sd.StyleModel(
        seeded(
            comfy.t2i_adapter.adapter.StyleAdapter(
                width=64, context_dim=768, num_head=4, n_layes=1, num_token=2
            )
        )
    )


def vision() -> comfy.clip_vision.ClipVisionModel:
    made = comfy.clip_vision.ClipVisionModel(VISION)
    seeded(made.model)
    return made


def seen_picture() -> comfy.clip_vision.Output:
    """What a CLIP vision model makes of a picture: 17 tokens of 64, 25 layers."""
    output = comfy.clip_vision.Output()
    output.last_hidden_state = output.penultimate_hidden_states = rand(1, 17, 64)
    output.all_hidden_states, output.image_embeds, output.mm_projected = (
        rand(1, 25, 17, 64),
        rand(1, 768),
        rand(1, 17, 64),
    )
    return output


def lite_weights() -> dict[str, torch.Tensor]:
    """An Anima LLLite file with one module, on the queries of the first block."""
    parts = {
        "lllite_conditioning1": lite.AnimaLLLiteConditioning(3, 16, 16, 0, (), operations=PLAIN),
        "lllite_dit_blocks_0_self_attn_q_proj": lite.AnimaLLLiteModule(
            320, 16, 8, operations=PLAIN
        ),
    }
    return {
        f"{name}.{key}": value
        for name, part in parts.items()
        for key, value in seeded(part).state_dict().items()
    }


def hypernetwork() -> dict:
    """A hypernetwork for keys and values of the texts (768)."""
    weight = torch.randn(768, 768, generator=torch.Generator().manual_seed(1)) * 0.01
    half = {"linear.0.weight": weight, "linear.0.bias": torch.zeros(768)}
    return {768: [half, half]}


def model_patch(node: type | None = None) -> ModelPatcher:
    """A small MODEL_PATCH of the kind that a node is for; an Anima LLLite where none is named."""
    name = getattr(node, "__name__", "")
    module = sys.modules[node.__module__] if node else None
    made: dict[str, Callable] = {
        "QwenImageDiffsynthControlnet": lambda: module.QwenImageBlockWiseControlNet(
            1, dim=16, operations=PLAIN
        ),
        "ZImageFunControlnet": lambda: module.QwenImageBlockWiseControlNet(
            1, dim=16, operations=PLAIN
        ),
        "WanUni3CControlnetApply": lambda: comfy.ldm.wan.uni3c.WanUni3CControlnet(
            dim=16,
            ffn_dim=16,
            num_layers=1,
            conv_out_dim=16,
            time_embed_dim=16,
            out_proj_dim=16,
            operations=PLAIN,
        ),
        "WanInfiniteTalkToVideo": lambda: module.MultiTalkModelPatch(
            intermediate_dim=8,
            in_dim=16,
            out_dim=8,
            context_tokens=2,
            num_layers=1,
            operations=PLAIN,
        ),
    }
    return patcher(
        made.get(name, lambda: lite.AnimaLLLite(lite_weights(), {}, CPU, torch.float32, PLAIN))()
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
        self.stage, self.merged = stage, stage.merged()
        self.positive, self.negative = self.texts(self.merged.clip)
        self.fixed = {
            "VAE": vae,
            "IMAGE": rand(1, 64, 64, 3),
            "MASK": rand(1, 64, 64),
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

    def texts(self, clip) -> tuple[list, list]:
        return tuple(
            clip.encode_from_tokens_scheduled(clip.tokenize(text)) for text in ("a picture", "")
        )

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
            positive, control, self.fixed["IMAGE"], 1.0
        )[0]

    def value(self, kind: str, name: str = "", node: type | None = None) -> object:
        """What goes into a socket of a node; of what may be changed, a copy.

        Raises KeyError when there is nothing of its type.
        """
        made: dict[str, Callable] = {
            "MODEL": self.merged.model.clone,
            "CLIP": self.merged.clip.clone,
            "CONDITIONING": lambda: copied(self.negative if "negative" in name else self.positive),
            "LATENT": lambda: {"samples": torch.zeros(1, 4, 8, 8)},
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
