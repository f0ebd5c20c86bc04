"""Training a task LoRA: resumed, cancelled, refused, and safety modules beside it left alone."""

import json

import merging
import pytest
import torch
from layer_roles import chosen
from modular_safety_lora.merge import merge
from modular_safety_lora.modules import files
from modular_safety_lora.modules.errors import SafetyError
from modular_safety_lora.training import data
from modular_safety_lora.training.adapter_settings import AdapterSettings
from modular_safety_lora.training.engine.checkpoint import CheckpointError
from modular_safety_lora.training.engine.job import TrainingJob
from modular_safety_lora.training.engine.loop import batches_of
from modular_safety_lora.training.settings import Settings
from modular_safety_lora.training.task import train_task
from safetensors.torch import load_file

pytestmark = pytest.mark.usefixtures("no_chart")


def test_every_picture_is_seen_once_an_epoch_and_batches_hold_one_size():
    settings = Settings(batch_size=2, accumulate=3, seed=5)
    buckets = [[0, 1, 2], [3, 4], [5, 6, 7, 8]]
    batches = [batch for step in range(10) for batch in batches_of(buckets, settings, step)]
    assert len(batches) == 30
    for epoch in range(6):
        seen = batches[5 * epoch : 5 * epoch + 5]
        assert {number for batch in seen for number in batch} == set(range(9))
        assert all(
            len({next(i for i, b in enumerate(buckets) if n in b) for n in batch}) == 1
            for batch in seen
        )
    assert batches[:5] != batches[5:10]


def test_a_resumed_run_is_bit_identical_to_an_uninterrupted_one(model, dataset, texts, tmp_path):
    settings = Settings(
        steps=6,
        batch_size=2,
        accumulate=2,
        schedule="cosine",
        warmup=2,
        noise_offset=0.1,
        **merging.SMALL,
    )
    settings = Settings(**{**vars(settings), "adapter": AdapterSettings(2, 2.0, dropout=0.2)})
    whole, parts = tmp_path / "whole.safetensors", tmp_path / "parts.safetensors"
    first = train_task(model, dataset, texts, settings, TrainingJob(whole)).progress
    for stop in (2, 3, 6):
        job = TrainingJob(parts, resume=True, on_step=lambda p, stop=stop: p.step < stop)
        last = train_task(model, dataset, texts, settings, job).progress
    assert parts.exists() and last.step == 6 and last.losses == first.losses
    expected, resumed = load_file(whole), load_file(parts)
    assert expected.keys() == resumed.keys() and all(
        torch.equal(resumed[key], expected[key]) for key in expected
    )
    assert any(value.abs().max() > 0 for key, value in expected.items() if "lora_up" in key)


def test_cancelling_keeps_what_was_trained_and_its_checkpoint(model, dataset, texts, tmp_path):
    output = tmp_path / "task.safetensors"
    job = TrainingJob(output, on_step=lambda p: p.step < 2)
    progress = train_task(model, dataset, texts, Settings(steps=9, **merging.SMALL), job).progress
    assert progress.cancelled and progress.step == 2
    assert json.loads(files.load_task(output, "t").metadata["msl.training"])["steps_done"] == 2
    assert (tmp_path / "task.resume").exists()


def test_a_checkpoint_of_other_data_or_settings_is_refused(model, dataset, texts, tmp_path):
    output = tmp_path / "task.safetensors"
    train_task(
        model,
        dataset,
        texts,
        Settings(steps=4, **merging.SMALL),
        TrainingJob(output, on_step=lambda p: p.step < 1),
    )
    again = TrainingJob(output, resume=True)
    with pytest.raises(CheckpointError, match="was made with other data or settings"):
        train_task(model, dataset, texts, Settings(steps=4, seed=9, **merging.SMALL), again)
    other = data.Dataset(dataset.latents, dataset.conditions, dataset.buckets, "other")
    with pytest.raises(CheckpointError, match="was made with other data or settings"):
        train_task(model, other, texts, Settings(steps=4, **merging.SMALL), again)
    (tmp_path / "task.resume").write_bytes(b"broken")
    with pytest.raises(CheckpointError, match="it can't be read"):
        train_task(model, dataset, texts, Settings(steps=4, **merging.SMALL), again)


@pytest.mark.parametrize("mode", ["detached", "anchored", "frozen"])
def test_the_safety_module_stays_as_it_is_out_of_the_file_and_the_model_comes_back(
    model, dataset, texts, safety, tmp_path, mode
):
    output = tmp_path / "task.safetensors"
    network = model.model.diffusion_model
    before, held = (
        {name: value.detach().clone() for name, value in each.items()}
        for each in (network.state_dict(), safety.tensors)
    )
    settings = Settings(steps=2, safety_mode=mode, **merging.SMALL)
    train_task(
        model, dataset, texts, settings, TrainingJob(output), safety=[safety], concepts=["nude"]
    )
    after = network.state_dict()
    assert after.keys() == before.keys() and all(
        torch.equal(after[name], value) for name, value in before.items()
    )
    assert all(torch.equal(safety.tensors[name], value) for name, value in held.items())
    module = files.load_task(output, "task")
    assert (module.metadata["msl.safety_mode"], module.metadata["msl.safety_sha256"]) == (
        mode,
        safety.sha256,
    )
    assert len({key.rsplit(".lora_", 1)[0] for key in module.tensors if ".lora_" in key}) == len(
        chosen(network, "cross-attention")
    )
    for trained in module.tensors.values():
        assert not any(
            trained.shape == held.shape and torch.equal(trained, held.float())
            for held in safety.tensors.values()
        )
    merged = merge.merge(model, [safety], [merge.Task(module)])
    assert merged.report["modules"][1]["keys_unused"] == {}


def test_a_module_anchored_to_two_safety_modules_needs_both(
    model, dataset, texts, safety, tmp_path
):
    other = merging.safety(
        {key: 0.5 * value for key, value in safety.tensors.items()}, name="other.safetensors"
    )
    settings = Settings(steps=1, safety_mode="anchored", **merging.SMALL)
    held = {"safety": [safety, other], "concepts": ["nude"]}
    module = train_task(
        model, dataset, texts, settings, TrainingJob(tmp_path / "t.safetensors"), **held
    ).module
    assert module.metadata["msl.safety_sha256"] == ",".join(sorted([safety.sha256, other.sha256]))
    assert merge.merge(model, [other, safety], [merge.Task(module)]).report["retained_safety"] > 0.9
    with pytest.raises(SafetyError, match=f"the safety LoRA {other.sha256[:12]} and needs it"):
        merge.merge(model, [safety], [merge.Task(module)])


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ({"steps": 0}, "steps is 0"),
        ({"learning_rate": float("nan")}, "learning_rate is nan"),
        ({"safety_mode": "sequential"}, "must be one of detached, anchored, frozen"),
    ],
)
def test_bad_settings_say_what_is_wrong(what, message):
    with pytest.raises(ValueError, match=message):
        Settings(**what)


def test_runs_that_cannot_be_are_refused_before_they_start(model, dataset, texts, safety, tmp_path):
    output = tmp_path / "task.safetensors"
    with pytest.raises(ValueError, match="'frozen' needs a safety LoRA"):
        train_task(
            model,
            dataset,
            texts,
            Settings(safety_mode="frozen", **merging.SMALL),
            TrainingJob(output),
        )
    with pytest.raises(ValueError, match="needs prompts of the concept"):
        train_task(
            model,
            dataset,
            texts,
            Settings(safety_mode="anchored", **merging.SMALL),
            TrainingJob(output),
            safety=[safety],
        )
    with pytest.raises(ValueError, match="carries LoRAs or other patches"):
        train_task(
            merge.merge(model, [safety]).model,
            dataset,
            texts,
            Settings(**merging.SMALL),
            TrainingJob(output),
        )
    with pytest.raises(ValueError, match="No layer of this model matches the targets 'nothing'"):
        train_task(
            model,
            dataset,
            texts,
            Settings(**{**merging.SMALL, "targets": "nothing"}),
            TrainingJob(output),
        )
    with pytest.raises(ValueError, match="nor a regular expression"):
        train_task(
            model,
            dataset,
            texts,
            Settings(**{**merging.SMALL, "targets": "to_("}),
            TrainingJob(output),
        )
    output.write_bytes(b"")
    with pytest.raises(FileExistsError, match="exists already"):
        train_task(model, dataset, texts, Settings(**merging.SMALL), TrainingJob(output))
