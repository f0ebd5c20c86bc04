"""Training a task LoRA: losses against their papers, resuming, cancelling, bad data, final file."""

import json

import merging
import pytest
import torch
from modular_safety_lora.host.denoiser import Denoiser
from modular_safety_lora.merge import merge
from modular_safety_lora.modules import files
from modular_safety_lora.training import data
from modular_safety_lora.training.engine.adapters import AdapterSettings, adapters_in, target_layers
from modular_safety_lora.training.engine.checkpoint import Checkpoint, CheckpointError
from modular_safety_lora.training.engine.loop import TrainingError, batches_of, train
from modular_safety_lora.training.engine.run import Job
from modular_safety_lora.training.objectives.anchor import anchor_loss
from modular_safety_lora.training.objectives.task import task_loss
from modular_safety_lora.training.settings import Settings
from modular_safety_lora.training.task import train_task
from safetensors.torch import load_file


@pytest.mark.parametrize("kind", ["eps", "v"])
def test_min_snr_weights_are_the_papers(model, kind):
    denoiser = Denoiser(merging.of_kind(model, kind))
    sigma = torch.tensor([0.05, 0.4, 1.0, 3.0, 14.0])
    snr = 1 / sigma**2
    assert torch.allclose(denoiser.snr(sigma), snr, rtol=1e-4)
    ours = denoiser.output_scale(sigma).square() * denoiser.snr(sigma).clamp(max=5.0)
    # Hang et al. 2023, sections 3.4 and appendix
    paper = snr.clamp(max=5.0) / (snr if kind == "eps" else snr + 1)
    assert torch.allclose(ours, paper, rtol=1e-4)


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
    first = train_task(model, dataset, texts, settings, Job(whole)).progress
    for stop in (2, 3, 6):
        job = Job(parts, resume=True, on_step=lambda p, stop=stop: p.step < stop)
        last = train_task(model, dataset, texts, settings, job).progress
    assert parts.exists() and last.step == 6 and last.losses == first.losses
    expected, resumed = load_file(whole), load_file(parts)
    assert expected.keys() == resumed.keys() and all(
        torch.equal(resumed[key], expected[key]) for key in expected
    )
    assert any(value.abs().max() > 0 for key, value in expected.items() if "lora_up" in key)


def test_cancelling_keeps_what_was_trained_and_its_checkpoint(model, dataset, texts, tmp_path):
    output = tmp_path / "task.safetensors"
    job = Job(output, on_step=lambda p: p.step < 2)
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
        Job(output, on_step=lambda p: p.step < 1),
    )
    again = Job(output, resume=True)
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
    train_task(model, dataset, texts, settings, Job(output), safety=[safety], concepts=["nude"])
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
        target_layers(network, "cross-attention")
    )
    for trained in module.tensors.values():
        assert not any(
            trained.shape == held.shape and torch.equal(trained, held.float())
            for held in safety.tensors.values()
        )
    merged = merge.merge(model, [safety], [merge.Task(module)])
    assert merged.report["modules"][1]["keys_unused"] == {}


def test_the_anchor_is_zero_at_the_start_and_pulls_back_what_moved(model, texts, safety):
    denoiser = Denoiser(merge.merge(model, [safety]).model)
    network = denoiser.base.diffusion_model
    latents = denoiser.latents_in(
        torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(2))
    )
    sigma = torch.tensor([2.0])
    noisy = denoiser.noised(
        latents, torch.randn(latents.shape, generator=torch.Generator().manual_seed(3)), sigma
    )
    pair = [denoiser.conditions([texts[text]], noisy) for text in ("nude", "")]
    both = denoiser.conditions([texts["nude"], texts[""]], noisy)
    with adapters_in(
        network, target_layers(network, "cross-attention"), AdapterSettings(2, 2.0)
    ) as adapters:
        assert anchor_loss(denoiser, adapters, noisy, sigma, both).item() == 0.0
        with torch.no_grad():
            held = denoiser.output(noisy, sigma, pair[0]) - denoiser.output(noisy, sigma, pair[1])
        for value in adapters.parameters.values():
            value.data += 0.1 * torch.randn(value.shape, generator=torch.Generator().manual_seed(4))
        with torch.no_grad():
            moved = denoiser.output(noisy, sigma, pair[0]) - denoiser.output(noisy, sigma, pair[1])
        loss = anchor_loss(denoiser, adapters, noisy, sigma, both)
        assert (
            loss.item() == pytest.approx((moved - held).square().mean().item(), rel=1e-4)
            and loss.item() > 0
        )
        loss.backward()
        assert all(value.grad is not None for value in adapters.parameters.values())


def test_a_loss_that_is_not_a_number_ends_training_and_keeps_the_checkpoint(model, tmp_path):
    network, state = model.model.diffusion_model, tmp_path / "state.safetensors"
    calls = []

    def loss_of(batch):
        calls.append(batch)
        value = sum(each.square().sum() for each in adapters.parameters.values())
        return {"task": value * (float("nan") if len(calls) == 3 else 1.0)}

    with adapters_in(
        network, target_layers(network, "cross-attention"), AdapterSettings(2, 2.0)
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


def test_task_loss_is_the_plain_denoising_loss(model, texts):
    denoiser = Denoiser(model)
    generator = torch.Generator().manual_seed(1)
    clean, noise = (
        denoiser.latents_in(torch.randn(2, 4, 8, 8, generator=generator)),
        torch.randn(2, 4, 8, 8, generator=generator),
    )
    sigma = torch.tensor([0.5, 5.0])
    conditions = denoiser.conditions([texts["a cat"]] * 2, clean)
    with torch.no_grad():
        noisy = clean + sigma.reshape(-1, 1, 1, 1) * noise
        expected = torch.nn.functional.mse_loss(denoiser.output(noisy, sigma, conditions), noise)
        assert task_loss(denoiser, clean, noise, sigma, conditions).item() == pytest.approx(
            expected.item(), rel=1e-3
        )


@pytest.mark.parametrize(
    ("loss", "formula"),
    [
        ("l1", lambda error: error.abs()),
        ("huber", lambda error: 0.2 * ((error**2 + 0.01) ** 0.5 - 0.1)),
        ("l2", lambda error: error**2),
    ],
)
def test_an_error_counts_as_the_setting_says(model, dataset, texts, tmp_path, loss, formula):
    denoiser = Denoiser(model)
    generator = torch.Generator().manual_seed(1)
    clean, noise = (
        denoiser.latents_in(torch.randn(2, 4, 8, 8, generator=generator)) for _ in range(2)
    )
    sigma = torch.tensor([0.5, 5.0])
    conditions = denoiser.conditions([texts["a cat"]] * 2, clean)
    with torch.no_grad():
        noisy = clean + sigma.reshape(-1, 1, 1, 1) * noise
        expected = formula(denoiser.output(noisy, sigma, conditions) - noise).mean().item()
        found = task_loss(denoiser, clean, noise, sigma, conditions, loss=loss).item()
    assert found == pytest.approx(expected, rel=1e-3)
    settings = Settings(steps=1, loss=loss, **merging.SMALL)
    module = train_task(model, dataset, texts, settings, Job(tmp_path / "task.safetensors")).module
    assert json.loads(module.metadata["msl.training"])["loss"] == loss


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
    with pytest.raises(ValueError, match="'frozen' needs a safety module"):
        train_task(
            model, dataset, texts, Settings(safety_mode="frozen", **merging.SMALL), Job(output)
        )
    with pytest.raises(ValueError, match="needs prompts of the concept"):
        train_task(
            model,
            dataset,
            texts,
            Settings(safety_mode="anchored", **merging.SMALL),
            Job(output),
            safety=[safety],
        )
    with pytest.raises(ValueError, match="carry LoRAs or other patches"):
        train_task(
            merge.merge(model, [safety]).model,
            dataset,
            texts,
            Settings(**merging.SMALL),
            Job(output),
        )
    with pytest.raises(ValueError, match="No layer of this model matches the targets 'nothing'"):
        train_task(
            model, dataset, texts, Settings(**{**merging.SMALL, "targets": "nothing"}), Job(output)
        )
    with pytest.raises(ValueError, match="are not a regular expression"):
        train_task(
            model, dataset, texts, Settings(**{**merging.SMALL, "targets": "to_("}), Job(output)
        )
    output.write_bytes(b"")
    with pytest.raises(FileExistsError, match="exists already"):
        train_task(model, dataset, texts, Settings(**merging.SMALL), Job(output))


def test_bad_data_names_the_count_and_the_first(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(data.DataError, match="no pictures in it"):
        data.find_pictures(tmp_path / "empty")
    with pytest.raises(data.DataError, match="there is no such folder"):
        data.find_pictures(tmp_path / "missing")
    folder = merging.picture_folder(tmp_path / "data")
    assert [each.caption for each in data.find_pictures(folder)] == [
        "a picture 0",
        "a picture 1",
        "a picture 2",
    ]
    (folder / "1.txt").unlink()
    with pytest.raises(data.DataError, match=r"1 of 3 pictures have no caption \(first: 1.png\)"):
        data.find_pictures(folder)
    (folder / "1.txt").write_text("")
    (folder / "lonely.txt").write_text("x")
    with pytest.raises(data.DataError, match=r"1 captions have no picture \(first: lonely.txt\)"):
        data.find_pictures(folder)
    (folder / "lonely.txt").unlink()
    (folder / "2.png").write_bytes((folder / "2.png").read_bytes()[:40])
    with pytest.raises(data.DataError, match=r"1 of 3 pictures can't be read \(first: 2.png"):
        data.load(data.find_pictures(folder), lambda pixels: pixels, dict)
    (folder / "metadata.jsonl").write_text('{"file_name": "0.png", "text": "zero"}\n\n')
    assert [each.caption for each in data.find_pictures(folder)] == ["zero"]
    (folder / "metadata.jsonl").write_text('{"file_name": "gone.png", "text": "zero"}\n{}\n')
    with pytest.raises(data.DataError, match=r"line 1 names gone.png, which is not there"):
        data.find_pictures(folder)


def test_buckets_keep_the_aspect_ratio_and_the_area():
    assert data.bucket_size(512, 512, 512) == (512, 512) and data.bucket_size(1024, 512, 512) == (
        704,
        384,
    )
    for width, height in ((640, 480), (300, 1000), (4000, 300), (64, 64)):
        bucket = data.bucket_size(width, height, 512)
        assert (
            all(side % 64 == 0 for side in bucket) and 0.8 < bucket[0] * bucket[1] / 512**2 < 1.25
        )


def test_a_module_anchored_to_two_safety_modules_needs_both(
    model, dataset, texts, safety, tmp_path
):
    other = merging.safety(
        {key: 0.5 * value for key, value in safety.tensors.items()}, name="other.safetensors"
    )
    settings = Settings(steps=1, safety_mode="anchored", **merging.SMALL)
    held = {"safety": [safety, other], "concepts": ["nude"]}
    module = train_task(
        model, dataset, texts, settings, Job(tmp_path / "t.safetensors"), **held
    ).module
    assert module.metadata["msl.safety_sha256"] == ",".join(sorted([safety.sha256, other.sha256]))
    assert merge.merge(model, [other, safety], [merge.Task(module)]).report["retained_safety"] > 0.9
    with pytest.raises(merge.SafetyError, match="it was trained anchored beside the safety module"):
        merge.merge(model, [safety], [merge.Task(module)])


@pytest.mark.parametrize("every", [1, 2, 3, 5])
def test_an_anchor_now_and_then_weighs_as_much_as_one_in_each_step(
    model, dataset, texts, safety, tmp_path, every
):
    settings = Settings(
        steps=30, anchor_every=every, safety_mode="anchored", anchor_lambda=2.0, **merging.SMALL
    )
    weights = [settings.anchor_weight(step) for step in range(30)]
    assert (
        sum(weights) / 30 == pytest.approx(2.0)
        and sum(weight > 0 for weight in weights) == 30 // every
    )
    if every == 3:
        job = Job(tmp_path / "t.safetensors", on_step=lambda progress: progress.step < 6)
        losses = train_task(
            model, dataset, texts, settings, job, safety=[safety], concepts=["nude"]
        ).progress.losses
        assert [step for step, parts in enumerate(losses, 1) if "anchor" in parts] == [3, 6]
        assert all(parts["anchor"] > 0 for parts in losses if "anchor" in parts)
