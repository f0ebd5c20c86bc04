"""Training on weights as users hold them, in fp16, bf16 or fp8, makes float32 adapters.

It does so at every precision. The yardstick is the same training on weights held in float32 that
were rounded to the held dtype's values first. A layer casts its weight to what it computes in, so
both are one function, and all that may differ is the training.
"""

import comfy.sd
import merging
import pytest
import small_models
import torch
from modular_safety_lora.host.denoiser import Denoiser
from modular_safety_lora.host.lending import computing_in, lent
from modular_safety_lora.lab import assets
from modular_safety_lora.training.engine import adapters as adapters_module
from modular_safety_lora.training.engine.adapters import AdapterSettings, adapters_in, target_layers
from modular_safety_lora.training.engine.loop import TrainingError, train
from modular_safety_lora.training.engine.run import Job
from modular_safety_lora.training.safety import train_safety
from modular_safety_lora.training.settings import PRECISIONS, Erasure, Settings
from modular_safety_lora.training.task import train_task
from safetensors.torch import load_file
from small_models import small_model

HALF = (torch.float16, torch.bfloat16, torch.float8_e4m3fn)
LAYERS = r"attn2|in_layers\.2"  # linear layers with and without a bias, and convolutions
LORA, DORA = AdapterSettings(2, 2.0), AdapterSettings(2, 2.0, use_dora=True)


def short(**changed) -> Settings:
    return Settings(
        **{"steps": 3, "targets": LAYERS, "learning_rate": 1e-3, "adapter": LORA, **changed}
    )


@pytest.fixture(autouse=True)
def alone():
    """One thread: more only wait for each other in networks as small as these."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def trained(model, settings: Settings, output, stops: tuple[int, ...] = (), texts=None, **more):
    """Train a task LoRA on a small model, ended and resumed at each of `stops`."""
    for stop in (*stops, settings.steps):
        job = Job(
            output, resume=bool(stops), on_step=lambda progress, stop=stop: progress.step < stop
        )
        result = train_task(model, small_models.dataset(model), texts or {}, settings, job, **more)
        if stop < settings.steps:
            kept = load_file(output.with_suffix(".resume"))
            assert {value.dtype for value in kept.values() if value.is_floating_point()} == {
                torch.float32
            }
    return result


def check(result) -> dict[str, torch.Tensor]:
    """The tensors of a run's file: float32, finite, and no longer where they started."""
    tensors = result.module.tensors
    assert all(
        value.dtype == torch.float32 and value.isfinite().all() for value in tensors.values()
    )
    assert all(
        value.abs().max() > 0
        for name, value in tensors.items()
        if "lora_up" in name or "lora_B" in name
    )
    return tensors


def same(one, other) -> bool:
    return one.keys() == other.keys() and all(
        torch.equal(value, other[name]) for name, value in one.items()
    )


@pytest.mark.parametrize("adapter", [LORA, DORA], ids=["lora", "dora"])
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("held", small_models.HELD, ids=str)
def test_every_precision_trains_on_weights_held_in_any_dtype_as_on_float32(
    tmp_path, held, precision, adapter
):
    """To the bit, resumed or not.

    The values are the same, and the layers cast them to the same precision.
    """
    settings = short(precision=precision, adapter=adapter)
    resumed = trained(
        small_model("SD15", held), settings, tmp_path / "held.safetensors", stops=(1,)
    )
    exact = trained(
        small_model("SD15", torch.float32, held), settings, tmp_path / "float32.safetensors"
    )
    assert same(check(resumed), check(exact)) and resumed.progress.losses == exact.progress.losses
    assert any("dora_scale" in name for name in resumed.module.tensors) == adapter.use_dora


@pytest.mark.parametrize("held", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("cast", [torch.float32, None], ids=["cast", "as on a GPU"])
def test_a_dit_trains_float32_adapters_on_half_weights(tmp_path, held, precision, cast):
    """`auto` on a GPU is bf16 on weights that are held in fp16.

    Except in training, the host computes with such weights in fp16.
    """
    settings = short(precision=precision, targets="attention")
    half = trained(
        small_model("SD3", held, cast=cast), settings, tmp_path / "held.safetensors", stops=(2,)
    )
    exact = trained(
        small_model("SD3", torch.float32, held), settings, tmp_path / "float32.safetensors"
    )
    assert same(check(half), check(exact))


@pytest.mark.parametrize("held", HALF, ids=str)
def test_after_300_steps_the_change_is_that_of_weights_held_in_float32(tmp_path, held):
    """|dW_held - dW_float32| / |dW_float32| over all layers as one vector, both computed in fp32.

    The float32 weights have the values of the held dtype: rounding a base is another base, and not
    the training's.
    """
    settings, changes = short(steps=300, targets="attention"), []
    for number, model in enumerate(
        (small_model("SD3", held), small_model("SD3", torch.float32, held))
    ):
        tensors = check(trained(model, settings, tmp_path / f"{number}.safetensors"))
        ups = {name: value for name, value in tensors.items() if "lora_B" in name}
        changes.append(
            torch.cat(
                [
                    (up @ tensors[name.replace("lora_B", "lora_A")]).flatten()
                    for name, up in ups.items()
                ]
            )
        )
    assert changes[1].norm() > 1 and merging.relative_error(*changes) < 0.02


@pytest.mark.parametrize("mode", ["anchored", "frozen"])
@pytest.mark.parametrize("held", HALF, ids=str)
def test_beside_a_safety_module_it_trains_too(tmp_path, held, mode):
    """Losses are near those on float32 weights, not equal.

    The host rounds the safety change to what it holds.
    """
    texts = dict(zip(("nude", ""), small_models.conditionings(2, seed=2), strict=True))
    settings, losses = short(safety_mode=mode, anchor_every=2, steps=4), []
    for name, model in (
        ("held", small_model("SD15", held)),
        ("float32", small_model("SD15", torch.float32, held)),
    ):
        network = model.model.diffusion_model
        shapes = {
            layer: network.get_submodule(layer).weight.shape
            for layer in target_layers(network, "cross-attention")
        }
        safety = merging.safety(assets.lora(shapes, 3))
        before = {key: value.clone() for key, value in network.state_dict().items()}
        more = {"texts": texts, "safety": [safety], "concepts": ["nude"]}
        result = trained(model, settings, tmp_path / f"{name}.safetensors", stops=(2,), **more)
        check(result)
        losses.append(result.progress.losses)
        after = network.state_dict()
        assert all(torch.equal(after[key].float(), value.float()) for key, value in before.items())
    assert [set(step) for step in losses[0]] == [
        {"task"},
        {"task", "anchor"} if mode == "anchored" else {"task"},
    ] * 2
    assert [step["task"] for step in losses[0]] == pytest.approx(
        [step["task"] for step in losses[1]], rel=0.05
    )


@pytest.mark.parametrize(("method", "adapter"), [("esd-x", LORA), ("sdd", LORA), ("esd-x", DORA)])
@pytest.mark.parametrize("held", HALF, ids=str)
def test_a_safety_lora_trains_as_on_float32(tmp_path, held, method, adapter):
    texts = dict(zip(("nude", ""), small_models.conditionings(2, seed=2), strict=True))
    tensors = []
    for name, model in (
        ("held", small_model("SD15", held)),
        ("float32", small_model("SD15", torch.float32, held)),
    ):
        for stop in (1, 3):
            job = Job(
                tmp_path / f"{name}.safetensors",
                resume=True,
                on_step=lambda p, stop=stop: p.step < stop,
            )
            erasure = Erasure(method, sampling_steps=3, ema=0.5)
            result = train_safety(
                model, texts, ["nude"], short(adapter=adapter), job, erasure=erasure, resolution=64
            )
        tensors.append(check(result))
    assert same(*tensors)


@pytest.mark.parametrize("held", HALF, ids=str)
def test_half_precision_trains_float32_adapters_and_resumes(models, texts, dataset, tmp_path, held):
    """On the checkpoint, as the stock loader holds it when it is asked for a dtype.

    On a GPU it does so unasked.
    """
    file = str(models / "checkpoints" / assets.CHECKPOINT)
    options = {"output_vae": False, "output_clip": False, "model_options": {"dtype": held}}
    model = comfy.sd.load_checkpoint_guess_config(file, **options)[0]
    assert {value.dtype for value in model.model.diffusion_model.parameters()} == {held}
    runs = {"exact": ("fp32", (4,)), "whole": ("bf16", (4,)), "parts": ("bf16", (2, 4))}
    results = {}
    for name, (precision, stops) in runs.items():
        for stop in stops:
            job = Job(
                tmp_path / f"{name}.safetensors",
                resume=True,
                on_step=lambda p, stop=stop: p.step < stop,
            )
            settings = Settings(steps=4, batch_size=2, precision=precision, **merging.SMALL)
            results[name] = train_task(model, dataset, texts, settings, job)
    losses = {
        name: [step["task"] for step in result.progress.losses] for name, result in results.items()
    }
    assert (
        losses["whole"] == pytest.approx(losses["exact"], rel=0.05)
        and losses["whole"] != losses["exact"]
    )
    assert losses["parts"] == losses["whole"] and (
        same(check(results["parts"]), check(results["whole"]))
    )


@pytest.mark.parametrize("held", small_models.HELD, ids=str)
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_an_adapted_layer_gives_its_own_dtype_and_dora_starts_at_the_base(held, precision):
    computed = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    with lent(small_model("SD15", held)) as own:
        denoiser = Denoiser(computing_in(own, precision))
        network, seen, gradients = denoiser.base.diffusion_model, [], []
        noisy, sigma = (
            torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1)),
            torch.tensor([1.0]),
        )
        conditions = denoiser.conditions(small_models.conditionings(1), noisy)
        with torch.no_grad():
            base = denoiser.output(noisy, sigma, conditions)
        layers = target_layers(network, LAYERS)
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
    network = small_model("SD3", torch.float16).model.diffusion_model
    monkeypatch.setattr(adapters_module, "seen_in_float32", lambda layers: torch.no_grad())
    layers = target_layers(network)
    message = (
        rf"{2 * len(layers)} of {2 * len(layers)} adapters are not float32"
        r" \(first: joint_blocks.* is torch.float16\)"
    )
    with pytest.raises(RuntimeError, match=message), adapters_in(network, layers, LORA):
        pytest.fail("half adapters were taken")


def large(held: torch.dtype, size: float):
    """A small model with one weight far beyond the others."""
    model = small_model("SD15", held)
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
                "The network computes in fp16, whose largest number is 65504:"
                " choose the precision bf16 or fp32"
            ),
        ),
        (
            torch.float16,
            "fp32",
            (
                r"1 weights of the base are not finite as they are held"
                r" \(first: input_blocks.0.0.weight, in torch"
            ),
        ),
    ],
    ids=["computed in fp16", "held in fp16"],
)
def test_a_loss_that_is_not_finite_names_what_may_be_its_cause(tmp_path, held, precision, way_out):
    with pytest.raises(TrainingError, match=rf"The loss of step 1 is (nan|inf) .* {way_out}"):
        trained(large(held, 1e6), short(precision=precision), tmp_path / "x.safetensors")
    check(trained(large(torch.float32, 1e6), short(precision="bf16"), tmp_path / "x.safetensors"))


def test_a_gradient_that_overflows_in_every_step_ends_training():
    """A scaler skips such a step and scales less.

    Without an end it would finish a run that learned nothing.
    """
    network = small_model("SD3").model.diffusion_model
    with adapters_in(network, target_layers(network), LORA) as adapters:

        def loss_of(batch):  # 0, with a gradient of 0 / 0 at B = 0
            return {
                "task": sum(
                    value.square().sum().sqrt()
                    for name, value in adapters.parameters.items()
                    if "lora_B" in name
                )
            }

        with pytest.raises(TrainingError, match="its gradient nan.*computes in fp16"):
            train(adapters, [[0]], loss_of, short(steps=50), scaled=True)
