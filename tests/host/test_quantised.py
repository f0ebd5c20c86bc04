"""What trains on a quantised model is a change of what the host computes, beside its layers.

That every format trains is in test_models.py.
"""

import comfy.model_management
import comfy.sd
import comfy.utils
import pytest
import torch
from modular_safety_lora.host.denoiser import Denoiser
from modular_safety_lora.host.layers import layers_of
from modular_safety_lora.host.lending import lent
from modular_safety_lora.lab import zoo
from modular_safety_lora.lab.zoo.quantised import quantised
from modular_safety_lora.lab.zoo.retained_weights import load, quantised_layers
from modular_safety_lora.training.adapter_settings import AdapterSettings
from modular_safety_lora.training.engine.adapters import adapters_in
from modular_safety_lora.training.targets import target_layers


@pytest.mark.parametrize("family", zoo.UNLIKE)
def test_the_adapters_are_beside_the_layer_as_the_host_computes_it(family):
    """What trains is a change of the quantised network's own output, not of another's."""
    model = quantised(family, "float8_e4m3fn")
    denoiser = Denoiser(model)
    network, [example] = denoiser.base.diffusion_model, zoo.conditionings(family, 1)
    clean = denoiser.latents_in(zoo.latents(family, 1)[0])
    sigma = denoiser.sampling.sigmas[-1:].float()
    conditions = denoiser.conditions([example], clean)
    with torch.no_grad():
        before = denoiser.output(clean, sigma, conditions)
    layers = target_layers(network, denoiser.roles(example), "all")
    packed = quantised_layers(model)
    held = {name: each for name, each in layers_of(network).items() if name in packed}
    assert len(held) > 20
    with adapters_in(network, layers, AdapterSettings(2, 2.0)) as adapters:
        with torch.no_grad():
            assert torch.equal(denoiser.output(clean, sigma, conditions), before)
        assert all(
            network.get_submodule(name).get_base_layer() is each for name, each in held.items()
        )
        assert {value.dtype for value in adapters.parameters.values()} == {torch.float32}


# int8's own layers round what goes into them too, and patched ones do not
@pytest.mark.parametrize(
    ("name", "near"), [("float8_e4m3fn", 0.02), ("int8_tensorwise", 0.1), ("nvfp4", 0.02)]
)
@pytest.mark.parametrize("dora", [False, True], ids=["lora", "dora"])
def test_the_file_is_the_change_that_was_trained(name, near, dora):
    """By the stock loader, patched at use, which rounds nothing."""
    model = quantised("Flux", name)
    [example], latent = zoo.conditionings("Flux", 1), zoo.latents("Flux", 1)[0]

    def output(patcher) -> torch.Tensor:
        load(patcher, streaming=True)
        base, sampling = patcher.model, patcher.model.model_sampling
        clean = base.process_latent_in(latent)
        with torch.no_grad():
            found = base.apply_model(clean, sampling.sigmas[-1:].float(), **given(clean))
        patcher.unpatch_model(torch.device("cpu"))
        return found

    denoiser = Denoiser(model)

    def given(clean) -> dict:
        [(_, conditions)] = denoiser.conditions([example], clean)
        return conditions

    layers = target_layers(denoiser.base.diffusion_model, denoiser.roles(example))
    settings = AdapterSettings(2, 2.0, use_dora=dora)
    before = output(model)
    with adapters_in(denoiser.base.diffusion_model, layers, settings) as adapters:
        generator = torch.Generator().manual_seed(1)
        for value in adapters.parameters.values():
            value.data += 0.1 * torch.randn(value.shape, generator=generator)
        trained, tensors = output(model), adapters.tensors()
    stock = comfy.sd.load_lora_for_models(model, None, tensors, 1.0, 0.0)[0]
    comfy.model_management.unload_all_models()
    assert (output(stock) - trained).norm() < near * (trained - before).norm()


def test_lending_a_quantised_model_copies_none_of_its_weights():
    """ComfyUI loads in inference mode; autograd gets other tensors over the same memory."""
    with torch.inference_mode():
        model = quantised("Flux", "float8_e4m3fn")
    places = [f"diffusion_model.{name}.weight" for name in quantised_layers(model)]

    def held(patcher) -> list[int]:
        packed = [comfy.utils.get_attr(patcher.model, place)._qdata for place in places]
        return [each.untyped_storage().data_ptr() for each in packed]

    before = held(model)
    assert len(before) > 10
    with lent(model) as own:
        assert held(own) == before
    assert held(model) == before
