"""What computes keeps of a safety change under ComfyUI's dynamic patcher, in a process of its own.

The library under that patcher must be there before torch finds the card, as in ComfyUI's `main.py`.
"""


def kept(name: str, cpu: bool) -> dict[str, float]:
    """What is left, brought onto the card and staying there; `cpu`: under the CPU's own patcher."""
    import comfy_aimdo.control

    if not cpu and not comfy_aimdo.control.init():
        raise RuntimeError("comfy-aimdo does not load here: there is no dynamic patcher")
    from ...host.comfyui import enter_comfyui

    enter_comfyui()
    import comfy.memory_management
    import comfy.model_management
    import torch
    from comfy.model_patcher import ModelPatcher, ModelPatcherDynamic

    from ...host.weights import loaded_weight
    from ...merge.merge import merge
    from ...merge.on_model import KEY
    from ..zoo.quantised import quantised
    from ..zoo.retained_weights import CPU, module_for, quantised_layers, retained

    if not cpu:
        cards = comfy.model_management.get_all_torch_devices()
        if not comfy_aimdo.control.init_devices([each.index for each in cards]):
            raise RuntimeError("comfy-aimdo finds no device: there is no dynamic patcher")
        comfy.memory_management.aimdo_enabled = True
    plain = quantised("Flux", name, torch.bfloat16, sizes={"hidden_size": 512, "num_heads": 16})
    kind = ModelPatcher if cpu else ModelPatcherDynamic
    model = kind(plain.model, comfy.model_management.get_torch_device(), CPU, plain.size)
    module, changes = module_for(model, quantised_layers(model))
    before = {key: loaded_weight(model, key).cpu() for key in changes}
    merged = merge(model, [module]).model
    comfy.model_management.load_models_gpu([merged])
    found = {}
    for when in ("brought", "stayed"):
        found[when] = round(retained(merged, before, changes), 4)
        assert found[when] > 0.99, f"{found} of the safety change is left"
    assert not merged.get_attachment(KEY).not_computed(merged)
    return found
