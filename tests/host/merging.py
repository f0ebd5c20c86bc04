"""What the merge tests share: the small checkpoint's layers, modules, and effective weights.

The modules are made from tensors.
"""

import comfy.lora
import comfy_extras.nodes_model_advanced as advanced
import numpy as np
import torch
from modular_safety_lora.host.weights import loaded_weight
from modular_safety_lora.modules.files import LoraFile
from modular_safety_lora.modules.seal import tensors_sha256
from modular_safety_lora.modules.tensors import dtype_name
from modular_safety_lora.training.adapter_settings import AdapterSettings
from PIL import Image

# of a short training run
SMALL = {"adapter": AdapterSettings(2, 2.0), "targets": "cross-attention", "learning_rate": 1e-3}
BLOCK = "input_blocks.1.1.transformer_blocks.0"
LINEAR = (
    f"{BLOCK}.attn1.to_q",
    f"{BLOCK}.attn2.to_k",
    f"{BLOCK}.attn2.to_out.0",
    f"{BLOCK}.ff.net.2",
)
CONVOLUTION = ("input_blocks.1.0.in_layers.2", "input_blocks.1.1.proj_in")


def shapes(model, *names: str) -> dict[str, torch.Size]:
    weights = model.model.state_dict()
    return {name: weights[f"diffusion_model.{name}.weight"].shape for name in names}


def safety(
    tensors, strength: str = "1.0", name: str = "safety.safetensors", base: str = "SD15"
) -> LoraFile:
    about = {"msl.role": "safety", "msl.strength": strength, "msl.base": base}
    return LoraFile(name, "safety", f"{name}-{strength}-{digest(tensors)}", about, tensors)


def task(tensors, name: str = "task.safetensors", **metadata: str) -> LoraFile:
    return LoraFile(name, "task", f"{name}-{digest(tensors)}", metadata, tensors)


def digest(tensors) -> str:
    """Of what they hold: what is measured of a merge is kept under the digests of its modules."""
    whole = {key: each.contiguous() for key, each in tensors.items()}
    return tensors_sha256(whole, {key: dtype_name(each) for key, each in whole.items()})


def effective(patcher, name: str, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """The weight that samples, by ComfyUI's own arithmetic: W0 with every patch on it."""
    key = name if name in patcher.model.state_dict() else f"diffusion_model.{name}.weight"
    w0 = loaded_weight(patcher, key).to(dtype)
    return comfy.lora.calculate_weight(patcher.patches.get(key, []), w0, key)


def base(patcher, name: str) -> torch.Tensor:
    return loaded_weight(patcher, f"diffusion_model.{name}.weight")


def relative_error(value: torch.Tensor, expected: torch.Tensor) -> float:
    return ((value.double() - expected.double()).norm() / expected.double().norm()).item()


def of_kind(model, kind: str):
    """The model as an eps, v or flow model, by the stock sampling nodes."""
    if kind == "v":
        return advanced.ModelSamplingDiscrete().patch(model, "v_prediction", False)[0]
    return advanced.ModelSamplingSD3().patch(model, 3.0)[0] if kind == "flow" else model


def picture_folder(folder, count: int = 3):
    """Pictures of noise in two sizes, with captions."""
    folder.mkdir()
    rng = np.random.default_rng(1)
    for number in range(count):
        size = (96, 64, 3) if number % 2 else (64, 64, 3)
        Image.fromarray(rng.integers(0, 256, size, dtype=np.uint8)).save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text(f"a picture {number % 2}")
    return folder
