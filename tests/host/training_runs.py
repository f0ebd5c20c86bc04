"""Short training runs, whether two sets of weights are the same, and where a file lands."""

import comfy.lora
import comfy.lora_convert
import merging
import torch
from modular_safety_lora.training.adapter_settings import AdapterSettings
from modular_safety_lora.training.engine.adapters import adapters_in
from modular_safety_lora.training.settings import Settings


def short_run(**changed) -> Settings:
    """Settings of a run of four steps."""
    return Settings(**{"steps": 4, "batch_size": 2, **merging.SMALL, **changed})


def weights(model) -> dict[str, torch.Tensor]:
    """A copy of a model's weights."""
    return {name: value.detach().clone() for name, value in model.model.state_dict().items()}


def same(one, other) -> bool:
    return one.keys() == other.keys() and all(
        torch.equal(value, other[name]) for name, value in one.items()
    )


def lands(model, module) -> set[str]:
    """The weights that ComfyUI's stock loader patches with a file's tensors."""
    names = comfy.lora.model_lora_keys_unet(model.model, {})
    tensors = comfy.lora_convert.convert_lora(dict(module.tensors))
    found = comfy.lora.load_lora(tensors, names)
    assert found, "nothing lands"
    return {key if isinstance(key, str) else key[0] for key in found}


def learned(network, layers: list[str], settings: AdapterSettings) -> tuple[dict, dict]:
    """(the tensors of seeded adapters on some layers, the change of each layer by PEFT)."""
    with adapters_in(network, layers, settings) as adapters:
        generator = torch.Generator().manual_seed(1)
        for value in adapters.parameters.values():
            value.data = 0.1 * torch.randn(value.shape, generator=generator)
        changes = {
            layer: network.get_submodule(layer).get_delta_weight("msl").detach() for layer in layers
        }
        return adapters.tensors(), changes
