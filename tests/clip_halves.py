"""CLIP-ViT-L-14's two halves as published, seeded: ComfyUI knows them by their size."""

from pathlib import Path

from modular_safety_lora.host.comfyui import enter_comfyui


def write_halves(vision: Path, text: Path) -> None:
    """Write the half that looks at pictures and the half that reads, in fp16: 850 MB."""
    enter_comfyui()
    import comfy.clip_vision
    import torch
    from safetensors.torch import save_file
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection

    torch.manual_seed(1)
    config = Path(comfy.clip_vision.__file__).with_name("clip_vision_config_vitl.json")
    seen = comfy.clip_vision.ClipVisionModel(str(config))
    read = CLIPTextModelWithProjection(
        CLIPTextConfig(hidden_size=768, num_hidden_layers=12, num_attention_heads=12,
                       intermediate_size=3072, projection_dim=768)
    )  # fmt: skip
    for file, weights in ((vision, seen.model.state_dict()), (text, read.state_dict())):
        filled = {
            key: (torch.randn(each.shape) * 0.03 if each.is_floating_point() else each).half()
            for key, each in weights.items()
            if "position_ids" not in key
        }
        file.parent.mkdir(parents=True, exist_ok=True)
        save_file(filled, file)
