"""The file of a training run in the ecosystem: diffusers' own loader, and what its metadata say."""

import json

import diffusers  # its classes load when they are asked for
import pytest
import torch
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
from comfy.ops import disable_weight_init
from comfy.supported_models import SD15
from layer_roles import chosen
from modular_safety_lora.host.names import in_ecosystem_names
from modular_safety_lora.lab import assets
from modular_safety_lora.modules import files
from modular_safety_lora.training.adapter_settings import AdapterSettings
from safetensors import safe_open
from safetensors.torch import save_file
from training_runs import learned

SMALL_SD15 = {**assets.UNET, "model_channels": 32}
SMALL_SDXL = {
    **SMALL_SD15,
    "channel_mult": [1, 2, 4],
    "num_res_blocks": [2, 2, 2],
    "transformer_depth": [0, 0, 2, 2, 3, 3],
    "transformer_depth_output": [0, 0, 0, 2, 2, 2, 3, 3, 3],
    "transformer_depth_middle": 3,
    "use_linear_in_transformer": True,
    "context_dim": 64,
    "num_classes": "sequential",
    "adm_in_channels": 96,
}
DIFFUSERS_SD15 = {
    "block_out_channels": (32, 32),
    "layers_per_block": 1,
    "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
    "cross_attention_dim": 768,
}
DIFFUSERS_SDXL = {
    "block_out_channels": (32, 64, 128),
    "layers_per_block": 2,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 2, 3),
    "cross_attention_dim": 64,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 8,
    "projection_class_embeddings_input_dim": 96,
}


@pytest.mark.parametrize(
    ("ours", "theirs", "pipeline"),
    [
        (SMALL_SD15, DIFFUSERS_SD15, "StableDiffusionPipeline"),
        (SMALL_SDXL, DIFFUSERS_SDXL, "StableDiffusionXLPipeline"),
    ],
)
@pytest.mark.parametrize(
    "settings", [AdapterSettings(3, 6.0), AdapterSettings(4, 2.0, use_rslora=True)]
)
@pytest.mark.parametrize("targets", ["attention", "all"])
def test_diffusers_loads_every_layer_with_the_same_change(
    tmp_path, ours, theirs, pipeline, settings, targets
):
    network = UNetModel(**ours, operations=disable_weight_init)
    layers = chosen(network, targets)
    tensors, changes = learned(network, layers, settings)
    named = in_ecosystem_names(tensors, SD15(ours))
    save_file(
        {key: value.contiguous() for key, value in named.items()}, tmp_path / "lora.safetensors"
    )

    unet = diffusers.UNet2DConditionModel(**theirs, attention_head_dim=8, norm_num_groups=32)
    parts = dict.fromkeys(
        ("vae", "text_encoder", "tokenizer", "scheduler", "safety_checker", "feature_extractor")
    )
    if pipeline == "StableDiffusionXLPipeline":
        parts = dict.fromkeys(("vae", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2"))
        parts["scheduler"] = diffusers.DDIMScheduler()
    pipe = getattr(diffusers, pipeline)(**parts, unet=unet)
    pipe.load_lora_weights(str(tmp_path / "lora.safetensors"), adapter_name="task")
    loaded = {
        name: module.get_delta_weight("task").detach()
        for name, module in unet.named_modules()
        if hasattr(module, "get_delta_weight")
    }
    assert len(loaded) == len(changes)
    renamed = {key.removeprefix("lora_unet_").split(".")[0] for key in named}
    assert {name.replace(".", "_") for name in loaded} == renamed
    # The layers of both in one order: each change is found once among the loaded ones, under its
    # own name.
    for layer, change in changes.items():
        stem = next(
            iter(
                in_ecosystem_names({f"diffusion_model.{layer}.alpha": torch.zeros(())}, SD15(ours))
            )
        )
        name = stem.removeprefix("lora_unet_").removesuffix(".alpha")
        twin = next(value for key, value in loaded.items() if key.replace(".", "_") == name)
        assert twin.shape == change.shape and torch.allclose(twin, change, atol=1e-5), layer


def test_the_metadata_are_the_contracts_and_the_ecosystems(trained):
    with safe_open(str(trained), framework="pt") as file:
        metadata = file.metadata()
    assert (
        metadata["msl.role"] == "task"
        and metadata["msl.base"] == "SD15"
        and len(metadata["msl.base_sha256"]) == 64
    )
    assert metadata["modelspec.sai_model_spec"] == "1.0.0"
    assert (
        metadata["modelspec.architecture"] == "stable-diffusion-v1/lora"
        and metadata["modelspec.title"] == "task"
    )
    assert (metadata["ss_network_module"], metadata["ss_network_dim"]) == ("networks.lora", "2")
    training = json.loads(metadata["msl.training"])
    assert (
        training["steps_done"] == 2
        and training["adapter"]["rank"] == 2
        and training["versions"]["peft"]
    )
    assert training["dataset_sha256"] and training["seed"] == 0
    assert files.load_task(trained, "task").sha256 == metadata["msl.tensors_sha256"]
