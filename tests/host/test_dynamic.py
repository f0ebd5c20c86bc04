"""What computes keeps of a safety change under NVIDIA's default, the host's dynamic patcher.

It loads, and resolves weights, by the host's own code, on the CPU. The library that lends it pages
of a graphics card's memory does not run here, and is left out.
"""

from types import SimpleNamespace

import comfy.memory_management
import comfy.ops
import comfy_aimdo.host_buffer
import pytest
import torch
from comfy.model_patcher import ModelPatcherDynamic
from comfy.utils import get_attr
from modular_safety_lora.host.weights import loaded_weight
from modular_safety_lora.lab import zoo
from modular_safety_lora.lab.zoo.quantised import FORMATS, SCALED, quantised
from modular_safety_lora.lab.zoo.retained_weights import CPU, module_for, quantised_layers
from modular_safety_lora.merge import rounding
from modular_safety_lora.merge.merge import merge
from modular_safety_lora.merge.on_model import KEY

WIDE = {"hidden_size": 128, "axes_dim": [16, 24, 24]}  # or most are too small to stream
STORAGE = "fp8 storage"
STORED = ["img_in", "single_blocks.0.linear1", "single_blocks.1.linear2"]


@pytest.fixture
def dynamic(monkeypatch):
    """Makes a MODEL in a quantised format, under the dynamic patcher."""
    monkeypatch.setattr(
        comfy_aimdo.host_buffer, "HostBuffer", lambda *_, **__: SimpleNamespace(size=0)
    )
    monkeypatch.setattr(
        ModelPatcherDynamic, "__new__", staticmethod(lambda cls, *_, **__: object.__new__(cls))
    )

    def made(name: str) -> ModelPatcherDynamic:
        if name == STORAGE:
            model = zoo.build("Flux", torch.float8_e4m3fn, sizes=WIDE)
        else:
            model = quantised("Flux", name, sizes=WIDE)
        return ModelPatcherDynamic(model.model, CPU, CPU)

    return made


def computing(layer) -> list[torch.Tensor]:
    """The weight that a loaded layer computes with: when it is brought, and once it has stayed."""
    if not hasattr(layer, "weight_lowvram_function"):
        return [layer.weight.dequantize() if hasattr(layer.weight, "dequantize") else layer.weight]
    held = [layer.weight, layer.bias]
    geometry = comfy.memory_management.tensors_to_geometries(held)
    pages = torch.zeros(comfy.memory_management.vram_aligned_size(held), dtype=torch.uint8)
    views = comfy.memory_management.interpret_gathered_like(geometry, pages)
    for place, value in zip(views, held, strict=True):
        if value is not None:
            place.copy_(value)
    layer._prefetch = {"resident": False, "signature": 1, "needs_cast": False}
    layer._prefetch |= {"xfer_dest": pages, "cast_geometry": geometry}
    found = []
    for _ in ("brought", "stayed"):
        weight, _ = comfy.ops.resolve_cast_module_with_vbar(
            layer, torch.float32, CPU, torch.float32, torch.float32, not layer.weight_function
        )
        found.append(weight.dequantize() if hasattr(weight, "dequantize") else weight)
    return found


def kept(patcher, before: dict, changes: dict) -> list[float]:
    """<W - W0, dW> / |dW|^2 over all weights, as `computing` has them: the least first."""
    sums, square = torch.zeros(2), 0.0
    for key, change in changes.items():
        found = computing(get_attr(patcher.model, key.rpartition(".")[0]))
        sums += torch.tensor([torch.sum((each - before[key]) * change) for each in found])
        square += change.square().sum().item()
    return sorted((sums / square).tolist())


@pytest.mark.parametrize("name", [*FORMATS, SCALED, STORAGE])
def test_what_computes_keeps_its_safety_when_it_is_brought_and_when_it_stays(dynamic, name):
    model = dynamic(name)
    module, changes = module_for(model, quantised_layers(model) or STORED)
    before = {key: loaded_weight(model, key) for key in changes}
    merged = merge(model, [module]).model
    for _ in ("once", "again"):
        merged.partially_load(CPU)
        small = changes.keys() & merged.backup.keys()
        assert 0 < len(small) < len(changes), "too small to stream, and large enough"
        least, most = kept(merged, before, changes)
        assert rounding.ENOUGH < least <= most < 1.01
        assert not merged.get_attachment(KEY).not_computed(merged)
    model.partially_load(CPU)
    assert max(map(abs, kept(model, before, changes))) < 0.01, "the base computes without it"
    assert all(torch.equal(loaded_weight(model, key), value) for key, value in before.items())
