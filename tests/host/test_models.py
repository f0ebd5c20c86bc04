"""Every family held in every format: what docs/models.md says of it.

A module merges and is in the weights that compute, the lock holds it, and both trainers train.
"""

import comfy.sd
import model_table
import pytest
import torch
from layer_roles import chosen
from model_table import CASES, FORMATS, LOCK, MERGE, TASK, often
from modular_safety_lora.host.structure import CROSS, FUSED, JOINT, SELF
from modular_safety_lora.host.weights import loaded_weight
from modular_safety_lora.lab import zoo
from modular_safety_lora.lab.zoo.retained_weights import kept, module_for, quantised_layers
from modular_safety_lora.merge import rounding
from modular_safety_lora.merge.entries import Task
from modular_safety_lora.merge.merge import merge
from modular_safety_lora.modules.errors import SafetyError
from modular_safety_lora.training import data
from modular_safety_lora.training.adapter_settings import AdapterSettings
from modular_safety_lora.training.engine.job import TrainingJob
from modular_safety_lora.training.engine.previews import Previews
from modular_safety_lora.training.objectives import Erasure
from modular_safety_lora.training.safety import train_safety
from modular_safety_lora.training.settings import Settings
from modular_safety_lora.training.targets import LEFT_OUT
from modular_safety_lora.training.task import train_task
from training_runs import lands

pytestmark = pytest.mark.usefixtures("one_thread", "unloaded", "no_chart")
LORA = {"adapter": AdapterSettings(2, 2.0), "learning_rate": 0.01}


def cases(*letters: str) -> list:
    """(family, format) of all that is tried so."""
    found = [
        pytest.param(
            family, name, marks=[] if often(family, name, "".join(letters)) else pytest.mark.long
        )
        for (family, name), tried in CASES.items()
        if set(letters) <= set(tried)
    ]
    return pytest.mark.parametrize(("family", "name"), found)


def weights(model) -> dict[str, torch.Tensor]:
    state = model.model.diffusion_model.state_dict()
    return {key: torch.as_tensor(value).clone() for key, value in state.items()}


@cases(MERGE, LOCK)
def test_a_safety_module_is_in_the_weights_that_compute_and_is_locked(family, name):
    model = FORMATS[name](family)
    layers = chosen(model.model.diffusion_model, "attention", family)
    module, changes = module_for(model, layers)
    before, base = {key: loaded_weight(model, key) for key in changes}, zoo.sampled(model, family)
    merged = merge(model, [module])
    assert merged.report["retained_safety"] == pytest.approx(1.0, abs=1e-3)
    assert min(kept(merged.model, before, changes).values()) > rounding.ENOUGH
    assert not torch.equal(zoo.sampled(merged.model, family), base)
    later = comfy.sd.load_lora_for_models(merged.model, None, dict(module.tensors), -1.0, 0.0)[0]
    with pytest.raises(SafetyError, match="is not whole on the model that samples"):
        zoo.sampled(later, family)
    assert torch.equal(zoo.sampled(model, family), base)


@cases(TASK)
def test_a_safety_module_and_a_task_train_and_merge(family, name, tmp_path):
    """The task is trained apart, and beside the safety module with previews."""
    model = FORMATS[name](family)
    before = weights(model)
    one, two = zoo.conditionings(family, 1)[0], zoo.conditionings(family, 1, 3, tokens=9)[0]
    texts, side = {"nude": one, "": two}, zoo.TWINS[family].side
    job = TrainingJob(tmp_path / "safety.safetensors")
    erased = train_safety(
        model,
        texts,
        ["nude"],
        Settings(steps=2, gradient_checkpointing=True, **LORA),
        job,
        erasure=Erasure(sampling_steps=2),
        resolution=side,
    ).module
    pictures = data.Dataset(zoo.latents(family, 2), [one, two], [[0, 1]], "digest")
    looks = Previews(
        ["nude"], texts, zoo.vae(family), tmp_path, every=9, resolution=side, sampling_steps=1
    )
    kept = {"safety": [erased], "concepts": ["nude"]}
    for mode, settings, previews in (
        ("detached", {"steps": 2}, None),
        ("anchored", {"steps": 1, "anchor_every": 1, "batch_size": 2, "targets": "all"}, looks),
    ):
        job = TrainingJob(tmp_path / f"{mode}.safetensors", previews=previews)
        settings = Settings(safety_mode=mode, **LORA | settings)
        learned = train_task(model, pictures, texts, settings, job, **kept)
        seen = [each["images"] for each in learned.progress.previews]
        assert seen == ([1, 1] if previews else [])  # the first one untrained
        for module in (erased, learned.module):
            halves = [each for key, each in module.tensors.items() if "lora_B" in key]
            halves += [each for key, each in module.tensors.items() if "lora_up" in key]
            assert halves and any(half.any() for half in halves)
        merged = merge(model, [erased], [Task(learned.module)])
        assert merged.report["retained_safety"] > 0.5
    assert set(learned.report["layers"]) & {SELF, CROSS, JOINT, FUSED}
    places = {
        f"diffusion_model.{layer}.weight"
        for layer in quantised_layers(model)
        if not layer.startswith(LEFT_OUT)
    }
    assert lands(model, learned.module) >= places and lands(model, erased)
    after = weights(model)
    assert after.keys() == before.keys()
    assert all(torch.equal(after[key].float(), value.float()) for key, value in before.items())


def test_the_host_takes_no_experts_without_tokens_in_int8():
    """When it does, HiDream trains in int8: RAISES of model_table.py goes."""
    family, name = model_table.RAISES
    network = FORMATS[name](family).model.diffusion_model
    expert = next(module.experts[0] for module in network.modules() if hasattr(module, "experts"))
    with torch.inference_mode(), pytest.raises(ValueError, match="non-empty list of Tensors"):
        expert(torch.empty(0, expert.w1.in_features))


def test_the_table_is_what_is_tried_here():
    """MSL_WRITE_TABLE=1 writes it."""
    model_table.check()
