"""The objectives of a task LoRA against their papers: losses, their weights, and the anchor."""

import json

import merging
import pytest
import torch
from layer_roles import chosen
from modular_safety_lora.host.denoiser import Denoiser
from modular_safety_lora.merge import merge
from modular_safety_lora.training.adapter_settings import AdapterSettings
from modular_safety_lora.training.engine.adapters import adapters_in
from modular_safety_lora.training.engine.job import TrainingJob
from modular_safety_lora.training.objectives.anchor import anchor_loss
from modular_safety_lora.training.objectives.task import task_loss
from modular_safety_lora.training.settings import Settings
from modular_safety_lora.training.task import train_task

pytestmark = pytest.mark.usefixtures("no_chart")


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


def test_task_loss_is_the_plain_denoising_loss(model, texts):
    denoiser = Denoiser(model)
    generator = torch.Generator().manual_seed(1)
    clean, noise = (
        denoiser.latents_in(torch.randn(2, 4, 4, 4, generator=generator)),
        torch.randn(2, 4, 4, 4, generator=generator),
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
        denoiser.latents_in(torch.randn(2, 4, 4, 4, generator=generator)) for _ in range(2)
    )
    sigma = torch.tensor([0.5, 5.0])
    conditions = denoiser.conditions([texts["a cat"]] * 2, clean)
    with torch.no_grad():
        noisy = clean + sigma.reshape(-1, 1, 1, 1) * noise
        expected = formula(denoiser.output(noisy, sigma, conditions) - noise).mean().item()
        found = task_loss(denoiser, clean, noise, sigma, conditions, loss=loss).item()
    assert found == pytest.approx(expected, rel=1e-3)
    settings = Settings(steps=1, loss=loss, **merging.SMALL)
    module = train_task(
        model, dataset, texts, settings, TrainingJob(tmp_path / "task.safetensors")
    ).module
    assert json.loads(module.metadata["msl.training"])["loss"] == loss


def test_the_anchor_is_zero_at_the_start_and_pulls_back_what_moved(model, texts, safety):
    denoiser = Denoiser(merge.merge(model, [safety]).model)
    network = denoiser.base.diffusion_model
    latents = denoiser.latents_in(
        torch.randn(1, 4, 4, 4, generator=torch.Generator().manual_seed(2))
    )
    sigma = torch.tensor([2.0])
    noisy = denoiser.noised(
        latents, torch.randn(latents.shape, generator=torch.Generator().manual_seed(3)), sigma
    )
    pair = [denoiser.conditions([texts[text]], noisy) for text in ("nude", "")]
    both = denoiser.conditions([texts["nude"], texts[""]], noisy)
    with adapters_in(
        network, chosen(network, "cross-attention"), AdapterSettings(2, 2.0)
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
        job = TrainingJob(tmp_path / "t.safetensors", on_step=lambda progress: progress.step < 6)
        losses = train_task(
            model, dataset, texts, settings, job, safety=[safety], concepts=["nude"]
        ).progress.losses
        assert [step for step, parts in enumerate(losses, 1) if "anchor" in parts] == [3, 6]
        assert all(parts["anchor"] > 0 for parts in losses if "anchor" in parts)
