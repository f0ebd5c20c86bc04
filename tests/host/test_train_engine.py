"""The engine of both trainers.

The lent model, memory, precision, optimizers, averages, previews, and what goes wrong.
"""

import json
import re
import sys

import comfy.sd
import merging
import pytest
import torch
from modular_safety_lora.audit.presets import PRESETS
from modular_safety_lora.host.denoiser import Denoiser
from modular_safety_lora.host.lending import recomputing
from modular_safety_lora.lab import assets
from modular_safety_lora.merge.merge import Task, merge
from modular_safety_lora.training import data
from modular_safety_lora.training.engine.adapters import AdapterSettings, adapters_in, target_layers
from modular_safety_lora.training.engine.charts import loss_plot
from modular_safety_lora.training.engine.loop import TrainingError
from modular_safety_lora.training.engine.output import check_room
from modular_safety_lora.training.engine.previews import Previews, look
from modular_safety_lora.training.engine.run import Job
from modular_safety_lora.training.safety import Erasure, train_safety
from modular_safety_lora.training.settings import Settings
from modular_safety_lora.training.task import train_task
from safetensors import safe_open
from safetensors.torch import load_file


def short(**changed) -> Settings:
    return Settings(**{"steps": 4, "batch_size": 2, **merging.SMALL, **changed})


def weights(model) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in model.model.state_dict().items()}


def same(one, other) -> bool:
    return one.keys() == other.keys() and all(
        torch.equal(value, other[name]) for name, value in one.items()
    )


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
            short(),
            Job(tmp_path / "task.safetensors", on_step=on_step),
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
        torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1)),
    )
    conditions = denoiser.conditions([texts["a cat"]], latents)
    forwards = {name: vars(module).get("forward") for name, module in network.named_modules()}
    gradients, saved = [], []
    with adapters_in(
        network, target_layers(network, "attention"), AdapterSettings(2, 2.0)
    ) as adapters:
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


@pytest.mark.parametrize(("optimizer", "rate"), [("adamw8bit", 1e-3), ("prodigy", 1.0)])
def test_other_optimizers_resume_to_the_bit(model, texts, dataset, tmp_path, optimizer, rate):
    large = AdapterSettings(16, 16.0)  # 8-bit from 4096 numbers on
    settings = short(optimizer=optimizer, learning_rate=rate, adapter=large)
    whole = train_task(model, dataset, texts, settings, Job(tmp_path / "whole.safetensors"))
    for stop in (1, 3, 4):
        job = Job(
            tmp_path / "parts.safetensors", resume=True, on_step=lambda p, stop=stop: p.step < stop
        )
        parts = train_task(model, dataset, texts, settings, job)
    assert parts.progress.losses == whole.progress.losses
    assert same(
        load_file(tmp_path / "parts.safetensors"), load_file(tmp_path / "whole.safetensors")
    )


def test_an_optimizer_that_is_not_installed_says_what_to_install(
    model, texts, dataset, tmp_path, monkeypatch
):
    monkeypatch.setitem(sys.modules, "prodigyopt", None)
    with pytest.raises(
        ValueError, match="needs the package prodigyopt.*pip install prodigyopt, or choose adamw"
    ):
        train_task(
            model,
            dataset,
            texts,
            short(optimizer="prodigy", learning_rate=1.0),
            Job(tmp_path / "x.safetensors"),
        )


def test_a_moving_average_is_saved_in_place_of_the_last_step(model, texts, dataset, tmp_path):
    steps = []
    for count in (1, 2, 3):
        job = Job(tmp_path / f"{count}.safetensors")
        steps.append(train_task(model, dataset, texts, short(steps=count), job).module.tensors)
    averaged = train_task(
        model, dataset, texts, short(steps=3, ema=0.5), Job(tmp_path / "ema.safetensors")
    ).module.tensors
    for name in (name for name in averaged if "lora_up" in name):  # these start at 0
        expected = 0.125 * steps[0][name] + 0.25 * steps[1][name] + 0.5 * steps[2][name]
        assert torch.allclose(averaged[name], expected, atol=1e-7), name


def test_prior_pictures_are_a_weighted_part_of_the_loss(model, texts, dataset, tmp_path):
    losses = []
    for weight in (1.0, 2.0):
        job = Job(tmp_path / f"{weight}.safetensors")
        result = train_task(
            model, dataset, texts, short(steps=1, prior_weight=weight), job, prior=dataset
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
    settings, results = short(safety_mode=mode), {}
    for name in ("without", "with"):
        previews = Previews(
            ["a cat", "a dog"], texts, vae, tmp_path / "previews", 2, 64, 2, rules=PRESETS["all"]
        )
        job = Job(tmp_path / f"{name}.safetensors", previews=previews if name == "with" else None)
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


def test_a_preview_that_the_lock_refuses_or_memory_does_not_allow_is_noted(
    model, texts, safety, vae, tmp_path
):
    previews = Previews(["a cat"], texts, vae, tmp_path / "previews", 2, 64, 2)
    hostile = merge(model, [safety], [Task(merging.task(dict(safety.tensors)), -1.0)])
    found = look(lambda: hostile, previews, 7)
    assert found["images"] == 0 and "is not whole on the model that samples" in found["error"]
    assert found["retained_safety"] == pytest.approx(0.0, abs=1e-3)

    class Full:  # what a GPU without memory does, and this machine can't
        def decode(self, samples):
            raise torch.OutOfMemoryError("out of memory")

    previews = Previews(["a cat"], texts, Full(), tmp_path / "previews", 2, 64, 2)
    assert "out of memory" in look(lambda: merge(model, [safety]), previews, 7)["error"]
    assert not (tmp_path / "previews").exists()
    noted = {**found, "step": 0}
    assert loss_plot([{"task": 1.0}], [noted]).size == (1200, 900)


def test_the_sockets_of_the_stock_dataset_nodes_are_read(texts):
    one, two = torch.ones(1, 4, 8, 8), torch.zeros(2, 4, 8, 16)
    listed = data.of_sockets(
        [{"samples": one}, {"samples": two}], [texts["a cat"], texts["a dog"], texts["nude"]]
    )
    bucketed = data.of_sockets(
        [{"samples": one}, {"samples": two}], [texts["a cat"], [*texts["a dog"], *texts["nude"]]]
    )
    assert listed.sha256 == bucketed.sha256 and [tuple(each.shape) for each in listed.latents] == [
        (1, 4, 8, 8),
        (1, 4, 8, 16),
        (1, 4, 8, 16),
    ]
    assert sorted(map(sorted, listed.buckets)) == [[0], [1, 2]] and torch.equal(
        listed.conditions[2][0][0], texts["nude"][0][0]
    )
    shared = data.of_sockets([{"samples": two}], [texts["a cat"]])
    assert len(shared.conditions) == 2 and shared.sha256 != listed.sha256
    with pytest.raises(
        data.DataError, match="There are 2 pictures in latents and 3 texts in positive"
    ):
        data.of_sockets([{"samples": two}], [texts["a cat"]] * 3)
    with pytest.raises(data.DataError, match="no pictures to train on"):
        data.of_sockets([], [texts["a cat"]])


def test_want_of_memory_is_a_clear_error_and_the_model_is_as_it_was(model, texts, tmp_path):
    before = weights(model)
    with pytest.raises(TrainingError, match=r"Memory does not suffice .* gradient checkpointing"):
        erasure, job = Erasure(sampling_steps=3), Job(tmp_path / "x.safetensors")
        train_safety(
            model, texts, ["nude"], Settings(steps=1), job, erasure=erasure, resolution=2**21
        )
    assert same(weights(model), before) and list(tmp_path.iterdir()) == []


def test_a_loss_that_is_not_a_number_leaves_the_last_checkpoint_and_the_model(
    model, texts, dataset, tmp_path
):
    """The checkpoint is of the step before.

    Once the picture is whole it goes on as if nothing had been broken.
    """
    before, output, settings = weights(model), tmp_path / "task.safetensors", short(steps=6, seed=1)
    latents = [*dataset.latents[:-1], torch.full_like(dataset.latents[-1], float("nan"))]
    broken, mended = (
        data.Dataset(each, dataset.conditions, dataset.buckets, "one")
        for each in (latents, dataset.latents)
    )
    with pytest.raises(
        TrainingError, match=r"The loss of step \d is nan .* look for broken pictures"
    ) as error:
        train_task(model, broken, texts, settings, Job(output, save_every=1))
    assert same(weights(model), before) and not output.exists()
    step = int(re.search(r"step (\d)", str(error.value)).group(1))
    with safe_open(str(output.with_suffix(".resume")), framework="pt") as kept:
        assert step > 1 and int(kept.metadata()["step"]) == step - 1
    steps = []
    job = Job(output, resume=True, on_step=lambda progress: steps.append(progress.step) or True)
    train_task(model, mended, texts, settings, job)
    whole = train_task(model, mended, texts, settings, Job(tmp_path / "whole.safetensors"))
    assert steps == list(range(step, 7)) and same(load_file(output), whole.module.tensors)


def test_a_disk_without_room_is_noticed_before_training(tmp_path):
    with pytest.raises(OSError, match=r"MB are free, and this run may write \d+ MB"):
        check_room(tmp_path, {"weight": torch.empty(2**50, device="meta")})
    check_room(tmp_path, {"weight": torch.empty(10)})


def test_a_finished_run_is_not_trained_again(trained, model, texts, dataset):
    with pytest.raises(
        FileExistsError, match="It is finished: there is no checkpoint to go on from"
    ):
        train_task(
            model, dataset, texts, Settings(steps=2, **merging.SMALL), Job(trained, resume=True)
        )
