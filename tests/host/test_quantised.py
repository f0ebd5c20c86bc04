"""Models held in quantised formats: modules merge, hold and train on every chosen layer."""

import pytest
import torch
from modular_safety_lora.host.denoiser import Denoiser
from modular_safety_lora.host.structure import layers_of
from modular_safety_lora.lab import zoo
from modular_safety_lora.lab.zoo.quantised import FORMATS, SCALED, quantised
from modular_safety_lora.merge.entries import Task
from modular_safety_lora.merge.merge import merge
from modular_safety_lora.training import data
from modular_safety_lora.training.engine.adapters import AdapterSettings
from modular_safety_lora.training.engine.run import TrainingJob
from modular_safety_lora.training.safety import train_safety
from modular_safety_lora.training.settings import Erasure, Settings
from modular_safety_lora.training.targets import target_layers
from modular_safety_lora.training.task import train_task
from training_runs import lands

FAMILIES = ("Flux", "QwenImage", "SD15")
LORA = {"adapter": AdapterSettings(2, 2.0), "learning_rate": 0.01}


def packed(network) -> set[str]:
    """The layers whose weights are quantised, as the host's own code holds them."""
    return {name for name, each in network.named_modules() if getattr(each, "layout_type", None)}


@pytest.mark.parametrize("name", [*FORMATS, SCALED])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_safety_module_and_a_task_beside_it_train_merge_and_are_held(family, name, tmp_path):
    model = quantised(family, name)
    network = model.model.diffusion_model
    before = {key: torch.as_tensor(value).clone() for key, value in network.state_dict().items()}
    assert len(packed(network)) > 20
    one, two = zoo.conditionings(family, 2)
    texts, pictures = {"nude": one, "": two}, zoo.latents(family, 2)
    erased = train_safety(
        model,
        texts,
        ["nude"],
        Settings(steps=2, **LORA),
        TrainingJob(tmp_path / "safety.safetensors"),
        erasure=Erasure(sampling_steps=2),
        resolution=64,
    ).module
    learned = train_task(
        model,
        data.Dataset(pictures, [one, two], [[0, 1]], "digest"),
        texts,
        Settings(steps=2, safety_mode="anchored", anchor_every=1, targets="all", **LORA),
        TrainingJob(tmp_path / "task.safetensors"),
        safety=[erased],
        concepts=["nude"],
    )
    roles = Denoiser(model).roles(one)
    chosen = target_layers(network, roles, "all")
    assert sum(learned.report["layers"].values()) == len(chosen) and packed(network) <= set(chosen)
    places = {f"diffusion_model.{layer}.weight" for layer in chosen}
    assert lands(model, learned.module) == places and lands(model, erased) < places
    merged = merge(model, [erased], [Task(learned.module)])
    assert merged.report["retained_safety"] > 0.5
    after = network.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(torch.as_tensor(after[key]), value) for key, value in before.items())


@pytest.mark.parametrize("family", FAMILIES)
def test_the_adapters_are_beside_the_layer_as_the_host_computes_it(family, tmp_path):
    """What trains is a change of the quantised network's own output, not of another's."""
    from modular_safety_lora.training.engine.adapters import adapters_in

    model = quantised(family, "float8_e4m3fn")
    denoiser = Denoiser(model)
    network, [example] = denoiser.base.diffusion_model, zoo.conditionings(family, 1)
    clean = denoiser.latents_in(zoo.latents(family, 1)[0])
    sigma = denoiser.sampling.sigmas[-1:].float()
    conditions = denoiser.conditions([example], clean)
    with torch.no_grad():
        before = denoiser.output(clean, sigma, conditions)
    layers = target_layers(network, denoiser.roles(example), "all")
    held = {name: each for name, each in layers_of(network).items() if name in packed(network)}
    with adapters_in(network, layers, AdapterSettings(2, 2.0)) as adapters:
        with torch.no_grad():
            assert torch.equal(denoiser.output(clean, sigma, conditions), before)
        assert all(
            network.get_submodule(name).get_base_layer() is each for name, each in held.items()
        )
        assert {value.dtype for value in adapters.parameters.values()} == {torch.float32}
