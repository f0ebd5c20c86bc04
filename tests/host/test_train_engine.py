"""The engine of both trainers: the lent model, memory, optimizers, averages and previews."""

import json

import comfy.sd
import pytest
import torch
from layer_roles import chosen
from modular_safety_lora.audit.presets import PRESETS
from modular_safety_lora.host.denoiser import Denoiser
from modular_safety_lora.host.gradients import recomputing
from modular_safety_lora.lab import assets
from modular_safety_lora.training.adapter_settings import AdapterSettings
from modular_safety_lora.training.engine.adapters import adapters_in
from modular_safety_lora.training.engine.job import TrainingJob
from modular_safety_lora.training.engine.previews import Previews
from modular_safety_lora.training.task import train_task
from safetensors.torch import load_file
from training_runs import same, short_run, weights


def test_a_model_of_a_workflow_is_trained_without_a_copy_and_given_back(
    models, texts, dataset, safety, tmp_path
):
    """Nodes run in inference mode, and what they load can't be saved for a backward pass."""
    with torch.inference_mode():
        model = comfy.sd.load_checkpoint_guess_config(
            str(models / "checkpoints" / assets.CHECKPOINT)
        )[0]
        before, tensors = dict(model.model.named_parameters()), weights(model)
        places = {name: value.data_ptr() for name, value in before.items()}
        assert all(value.is_inference() for value in before.values())
        seen = []

        def on_step(progress) -> bool:
            if progress.step == 2:
                now = dict(model.model.named_parameters())
                plain = [name for name in before if name in now]
                seen.extend(
                    [
                        any(now[name].is_inference() for name in plain),
                        [now[n].data_ptr() for n in plain],
                        plain,
                    ]
                )
            return True

        result = train_task(
            model,
            dataset,
            texts,
            short_run(),
            TrainingJob(tmp_path / "task.safetensors", on_step=on_step),
            safety=[safety],
        )
        assert result.progress.step == 4 and seen[0] is False
        assert seen[1] == [places[name] for name in seen[2]], "the weights were copied"
        after = dict(model.model.named_parameters())
        assert after.keys() == before.keys() and all(
            after[name] is value for name, value in before.items()
        )
        assert same(weights(model), tensors)


def test_gradient_checkpointing_gives_the_same_gradients_from_less_memory(model, texts):
    denoiser = Denoiser(model)
    network, latents = (
        denoiser.base.diffusion_model,
        torch.randn(1, 4, 4, 4, generator=torch.Generator().manual_seed(1)),
    )
    conditions = denoiser.conditions([texts["a cat"]], latents)
    forwards = {name: vars(module).get("forward") for name, module in network.named_modules()}
    gradients, saved = [], []
    with adapters_in(network, chosen(network, "attention"), AdapterSettings(2, 2.0)) as adapters:
        for value in adapters.parameters.values():
            value.data += 0.01
        for recompute in (False, True):
            kept: dict[int, int] = {}

            def pack(tensor, kept=kept):
                kept[tensor.data_ptr()] = (
                    tensor.numel()
                    * tensor.element_size()
                    * (not isinstance(tensor, torch.nn.Parameter))
                )
                return tensor

            with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
                if recompute:
                    with recomputing(network):
                        loss = (
                            denoiser.output(latents, torch.tensor([1.0]), conditions)
                            .square()
                            .mean()
                        )
                        saved.append(sum(kept.values()))
                        loss.backward()
                else:
                    loss = denoiser.output(latents, torch.tensor([1.0]), conditions).square().mean()
                    saved.append(sum(kept.values()))
                    loss.backward()
            gradients.append(
                {name: value.grad.clone() for name, value in adapters.parameters.items()}
            )
            for value in adapters.parameters.values():
                value.grad = None
    assert all(
        torch.allclose(gradients[1][name], value, rtol=1e-4, atol=1e-8)
        for name, value in gradients[0].items()
    )
    assert saved[1] < 0.4 * saved[0], saved
    assert {
        name: vars(module).get("forward") for name, module in network.named_modules()
    } == forwards


@pytest.mark.usefixtures("no_chart")
def test_what_a_run_tries_first_is_checkpointed_too(model, texts, dataset, tmp_path):
    """A trial that kept everything would need the memory that checkpointing is to save."""

    def kept(gradient_checkpointing: bool) -> int:
        found = 0

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            nonlocal found
            found += 0 if isinstance(tensor, torch.nn.Parameter) else tensor.nbytes
            return tensor

        settings = short_run(steps=1, gradient_checkpointing=gradient_checkpointing)
        job = TrainingJob(tmp_path / f"{gradient_checkpointing}.safetensors")
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            train_task(model, dataset, texts, settings, job)
        return found

    assert kept(True) < 0.5 * kept(False)


@pytest.mark.usefixtures("no_chart")
@pytest.mark.parametrize(("optimizer", "rate"), [("adamw8bit", 1e-3), ("prodigy", 1.0)])
def test_other_optimizers_resume_to_the_bit(model, texts, dataset, tmp_path, optimizer, rate):
    large = AdapterSettings(16, 16.0)  # 8-bit from 4096 numbers on
    settings = short_run(optimizer=optimizer, learning_rate=rate, adapter=large)
    whole = train_task(model, dataset, texts, settings, TrainingJob(tmp_path / "whole.safetensors"))
    for stop in (1, 3, 4):
        job = TrainingJob(
            tmp_path / "parts.safetensors", resume=True, on_step=lambda p, stop=stop: p.step < stop
        )
        parts = train_task(model, dataset, texts, settings, job)
    assert parts.progress.losses == whole.progress.losses
    assert same(
        load_file(tmp_path / "parts.safetensors"), load_file(tmp_path / "whole.safetensors")
    )


@pytest.mark.usefixtures("no_chart")
def test_a_moving_average_is_saved_in_place_of_the_last_step(model, texts, dataset, tmp_path):
    steps = []
    for count in (1, 2, 3):
        job = TrainingJob(tmp_path / f"{count}.safetensors")
        steps.append(train_task(model, dataset, texts, short_run(steps=count), job).module.tensors)
    averaged = train_task(
        model,
        dataset,
        texts,
        short_run(steps=3, ema=0.5),
        TrainingJob(tmp_path / "ema.safetensors"),
    ).module.tensors
    for name in (name for name in averaged if "lora_up" in name):  # these start at 0
        expected = 0.125 * steps[0][name] + 0.25 * steps[1][name] + 0.5 * steps[2][name]
        assert torch.allclose(averaged[name], expected, atol=1e-7), name


@pytest.mark.usefixtures("no_chart")
def test_prior_pictures_are_a_weighted_part_of_the_loss(model, texts, dataset, tmp_path):
    losses = []
    for weight in (1.0, 2.0):
        job = TrainingJob(tmp_path / f"{weight}.safetensors")
        result = train_task(
            model, dataset, texts, short_run(steps=1, prior_weight=weight), job, prior=dataset
        )
        losses.append(result.progress.losses[0])
    assert losses[0]["task"] == losses[1]["task"] and losses[1]["prior"] == pytest.approx(
        2 * losses[0]["prior"]
    )
    assert json.loads(result.module.metadata["msl.training"])["prior_pictures"] == 5


@pytest.mark.parametrize("mode", ["detached", "frozen"])
def test_previews_are_audited_and_change_nothing(
    model, texts, dataset, safety, vae, tmp_path, mode
):
    settings, results = short_run(safety_mode=mode), {}
    for name in ("without", "with"):
        previews = Previews(
            ["a cat", "a dog"], texts, vae, tmp_path / "previews", 2, 32, 2, preset=PRESETS["all"]
        )
        job = TrainingJob(
            tmp_path / f"{name}.safetensors", previews=previews if name == "with" else None
        )
        results[name] = train_task(model, dataset, texts, settings, job, safety=[safety])
    assert same(
        load_file(tmp_path / "with.safetensors"), load_file(tmp_path / "without.safetensors")
    )
    previews = results["with"].report["previews"]
    assert [each["step"] for each in previews] == [0, 2, 4] and all(
        each["images"] == 2 for each in previews
    )
    assert previews[0]["retained_safety"] == 1.0 and 0.9 < previews[-1]["retained_safety"] != 1.0
    assert len(list((tmp_path / "previews").iterdir())) == 6
    assert results["with"].plot.size == (1200, 900) and results["without"].plot.size == (1200, 600)
