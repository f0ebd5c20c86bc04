"""Layers and losses in every precision: adapters are float32, and what is not finite is told."""

import pytest
import small_models
import torch
from layer_roles import chosen
from modular_safety_lora.host.denoiser import Denoiser
from modular_safety_lora.host.lending import computing_in, lent
from modular_safety_lora.lab import zoo
from modular_safety_lora.training.engine import adapters as adapters_module
from modular_safety_lora.training.engine.adapters import adapters_in
from modular_safety_lora.training.engine.loop import TrainingError, train
from small_runs import DORA, LAYERS, LORA, check, short_run, trained

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("held", small_models.HELD, ids=str)
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_an_adapted_layer_gives_its_own_dtype_and_dora_starts_at_the_base(held, precision):
    computed = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    with lent(zoo.build("SD15", held)) as own:
        denoiser = Denoiser(computing_in(own, precision))
        network, seen, gradients = denoiser.base.diffusion_model, [], []
        noisy, sigma = (
            torch.randn(1, 4, 4, 4, generator=torch.Generator().manual_seed(1)),
            torch.tensor([1.0]),
        )
        conditions = denoiser.conditions(small_models.conditionings(1), noisy)
        with torch.no_grad():
            base = denoiser.output(noisy, sigma, conditions)
        layers = chosen(network, LAYERS)
        with adapters_in(network, layers, DORA) as adapters:
            for layer in layers:
                network.get_submodule(layer).register_forward_hook(
                    lambda module, args, out: seen.append(out.dtype)
                )
            output = denoiser.output(noisy, sigma, conditions)
            output.square().mean().backward()
            gradients = {
                name: value.grad
                for name, value in adapters.parameters.items()
                if "lora_A" not in name
            }
            norms = {
                layer: adapters.parameters[f"{layer}.lora_magnitude_vector.msl.weight"].detach()
                for layer in layers
            }
        assert seen == [computed] * len(layers) and torch.equal(output, base)
        assert all(
            each.dtype == torch.float32 and each.abs().max() > 0 for each in gradients.values()
        )
        for layer, norm in norms.items():
            weight = network.get_submodule(layer).weight
            assert torch.allclose(
                norm.flatten(), weight.double().flatten(1).norm(dim=1).float(), rtol=1e-6
            ), layer


def test_adapters_that_are_not_float32_are_refused(monkeypatch):
    network = zoo.build("SD35", torch.float16).model.diffusion_model
    monkeypatch.setattr(adapters_module, "seen_in_float32", lambda layers: torch.no_grad())
    layers = chosen(network)
    message = (
        rf"{2 * len(layers)} of {2 * len(layers)} have another dtype"
        r" \(first: joint_blocks.*, torch.float16\)"
    )
    with pytest.raises(RuntimeError, match=message), adapters_in(network, layers, LORA):
        pytest.fail("half adapters were taken")


def large(held: torch.dtype, size: float):
    """A small model with one weight far beyond the others."""
    model = zoo.build("SD15", held)
    with torch.no_grad():
        model.model.diffusion_model.input_blocks[0][0].weight.mul_(size)
    return model


@pytest.mark.parametrize(
    ("held", "precision", "way_out"),
    [
        (
            torch.float32,
            "fp16",
            (
                "The network computes in fp16, whose largest number is 65504."
                " Set precision to bf16 or fp32"
            ),
        ),
        (
            torch.float16,
            "fp32",
            (
                r"values in 1 weight of the base, as it is loaded"
                r" \(first: input_blocks.0.0.weight, in torch"
            ),
        ),
    ],
    ids=["computed in fp16", "held in fp16"],
)
def test_a_loss_that_is_not_finite_names_what_may_be_its_cause(tmp_path, held, precision, way_out):
    with pytest.raises(TrainingError, match=rf"The loss of step 1 is (nan|inf) .* {way_out}"):
        trained(large(held, 1e6), short_run(precision=precision), tmp_path / "x.safetensors")
    check(
        trained(large(torch.float32, 1e6), short_run(precision="bf16"), tmp_path / "x.safetensors")
    )


def test_a_gradient_that_overflows_in_every_step_ends_training():
    """A scaler skips such a step and scales less.

    Without an end it would finish a run that learned nothing.
    """
    network = zoo.build("SD35").model.diffusion_model
    with adapters_in(network, chosen(network), LORA) as adapters:

        def loss_of(batch):  # 0, with a gradient of 0 / 0 at B = 0
            return {
                "task": sum(
                    value.square().sum().sqrt()
                    for name, value in adapters.parameters.items()
                    if "lora_B" in name
                )
            }

        with pytest.raises(TrainingError, match="its gradient nan.*computes in fp16"):
            train(adapters, [[0]], loss_of, short_run(steps=50), scaled=True)
