"""What goes wrong in training: it is told, the model is as before, the last checkpoint stays."""

import re
import sys

import merging
import pytest
import torch
from layer_roles import chosen
from modular_safety_lora.merge.merge import Task, merge
from modular_safety_lora.training import data
from modular_safety_lora.training.adapter_settings import AdapterSettings
from modular_safety_lora.training.engine.adapters import adapters_in
from modular_safety_lora.training.engine.charts import loss_plot
from modular_safety_lora.training.engine.checkpoint import Checkpoint
from modular_safety_lora.training.engine.job import TrainingJob
from modular_safety_lora.training.engine.loop import TrainingError, train
from modular_safety_lora.training.engine.output import check_room
from modular_safety_lora.training.engine.previews import Previews, look
from modular_safety_lora.training.objectives import Erasure
from modular_safety_lora.training.safety import train_safety
from modular_safety_lora.training.settings import Settings
from modular_safety_lora.training.task import train_task
from modular_safety_lora.training.words import in_words
from safetensors import safe_open
from safetensors.torch import load_file
from training_runs import same, short_run, weights


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
            short_run(optimizer="prodigy", learning_rate=1.0),
            TrainingJob(tmp_path / "x.safetensors"),
        )


def test_a_disk_without_room_is_noticed_before_training(tmp_path):
    with pytest.raises(OSError, match=r"MB are free, and this run may write \d+ MB"):
        check_room(tmp_path, 2**50)
    check_room(tmp_path, 10)


def test_a_finished_run_is_not_trained_again(trained, model, texts, dataset):
    with pytest.raises(
        FileExistsError, match="That run is finished: there is no checkpoint to resume from"
    ):
        train_task(
            model,
            dataset,
            texts,
            Settings(steps=2, **merging.SMALL),
            TrainingJob(trained, resume=True),
        )


def test_want_of_memory_is_a_clear_error_and_the_model_is_as_it_was(model, texts, tmp_path):
    before = weights(model)
    with pytest.raises(TrainingError, match=r"Out of memory. Turn on gradient_checkpointing"):
        erasure, job = Erasure(sampling_steps=3), TrainingJob(tmp_path / "x.safetensors")
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
    before, output, settings = (
        weights(model),
        tmp_path / "task.safetensors",
        short_run(steps=6, seed=1),
    )
    latents = [*dataset.latents[:-1], torch.full_like(dataset.latents[-1], float("nan"))]
    broken, mended = (
        data.Dataset(each, dataset.conditions, dataset.buckets, "one")
        for each in (latents, dataset.latents)
    )
    with pytest.raises(
        TrainingError, match=r"The loss of step \d is nan .* look for broken pictures"
    ) as error:
        train_task(model, broken, texts, settings, TrainingJob(output, save_every=1))
    assert same(weights(model), before) and not output.exists()
    step = int(re.search(r"step (\d)", str(error.value)).group(1))
    with safe_open(str(output.with_suffix(".resume")), framework="pt") as kept:
        assert step > 1 and int(kept.metadata()["step"]) == step - 1
    steps = []
    job = TrainingJob(
        output, resume=True, on_step=lambda progress: steps.append(progress.step) or True
    )
    train_task(model, mended, texts, settings, job)
    whole = train_task(model, mended, texts, settings, TrainingJob(tmp_path / "whole.safetensors"))
    assert steps == list(range(step, 7)) and same(load_file(output), whole.module.tensors)


def test_a_preview_that_the_lock_refuses_or_that_is_no_picture_is_noted(
    model, texts, safety, vae, tmp_path
):
    previews = Previews(["a cat"], texts, vae, tmp_path / "previews", 2, 32, 2)
    hostile = merge(model, [safety], [Task(merging.task(dict(safety.tensors)), -1.0)])
    found = look(lambda: hostile, previews, 7)
    assert found["images"] == 0 and "is not whole on the model that samples" in found["error"]
    assert found["retained_safety"] == pytest.approx(0.0, abs=1e-3)

    class Full:  # what a GPU without memory does, and this machine can't
        def decode(self, samples):
            raise torch.OutOfMemoryError("out of memory")

    previews = Previews(["a cat"], texts, Full(), tmp_path / "previews", 2, 32, 2)
    assert "out of memory" in look(lambda: merge(model, [safety]), previews, 7)["error"]
    beyond = Previews(["a cat"], texts, vae, tmp_path / "previews", 2, 32, 2, guidance=1e300)
    nothing = look(lambda: merge(model, [safety]), beyond, 7)
    assert "picture 1 can't be judged" in nothing["error"] and nothing["images"] == 0
    assert not (tmp_path / "previews").exists()
    noted = {**found, "step": 0}
    assert loss_plot([{"task": 1.0}], [noted]).size == (1200, 900)


def test_a_loss_that_is_not_a_number_ends_training_and_keeps_the_checkpoint(model, tmp_path):
    network, state = model.model.diffusion_model, tmp_path / "state.safetensors"
    calls = []

    def loss_of(batch):
        calls.append(batch)
        value = sum(each.square().sum() for each in adapters.parameters.values())
        return {"task": value * (float("nan") if len(calls) == 3 else 1.0)}

    with adapters_in(
        network, chosen(network, "cross-attention"), AdapterSettings(2, 2.0)
    ) as adapters:
        with pytest.raises(TrainingError, match="The loss of step 3 is nan"):
            train(
                adapters,
                [[0]],
                loss_of,
                Settings(steps=5, **merging.SMALL),
                Checkpoint(state, every=1),
            )
        assert all(value.isfinite().all() for value in adapters.parameters.values())
        learned = {name: value.detach().clone() for name, value in adapters.parameters.items()}
        for value in adapters.parameters.values():
            value.data.zero_()
        calls.clear()
        stop = Settings(steps=2, **merging.SMALL)
        assert (
            train(adapters, [[0]], loss_of, stop, Checkpoint(state, every=1)).step == 2
            and not calls
        )
        assert all(torch.equal(value, learned[name]) for name, value in adapters.parameters.items())


def test_previews_of_a_safety_lora_that_is_still_too_weak_are_made_and_marked(
    model, texts, vae, tmp_path
):
    """Modular Merge does not take it, and one wants to see where it stands."""
    previews = Previews(["a cat"], texts, vae, tmp_path / "previews", 1, 64, 2)
    quick = {"erasure": Erasure(sampling_steps=2), "resolution": 64}
    for rate, weak in ((1e-6, [False, True]), (0.1, [False, False])):
        job = TrainingJob(tmp_path / f"{rate}.safetensors", previews=previews)
        settings = Settings(steps=1, learning_rate=rate)
        result = train_safety(model, texts, ["a cat"], settings, job, **quick)
        found = result.report["previews"]
        assert [each["images"] for each in found] == [1, 1]
        assert ["too_weak" in each for each in found] == weak
        said = in_words(result.report)
        assert ("Train it for longer: it is too weak for Modular Merge." in said) == weak[-1]
        assert said.count("too weak for Modular Merge yet") == sum(weak)
