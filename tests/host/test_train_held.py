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
from layer_roles import chosen
from modular_safety_lora.lab import assets, zoo
from modular_safety_lora.training.engine.job import TrainingJob
from modular_safety_lora.training.objectives import Erasure
from modular_safety_lora.training.safety import train_safety
from modular_safety_lora.training.settings import PRECISIONS, Settings
from modular_safety_lora.training.task import train_task
from small_runs import DORA, HALF, LORA, check, short_run, trained
from training_runs import same

pytestmark = pytest.mark.usefixtures("one_thread", "no_chart")
FP32, FP16, BF16, FP8, FP8_WIDE = small_models.HELD


def tried(names: str, cases: list, often: set):
    """Cases of which those in `often` are run each time, and the others are `long`.

    Every two values of different columns meet in a case that is run each time, but for what is
    said beside it.
    """
    assert often <= set(cases)
    marked = [
        pytest.param(*case, marks=[] if case in often else pytest.mark.long) for case in cases
    ]
    return pytest.mark.parametrize(
        names,
        marked,
        ids=lambda each: "lora" if each == LORA else "dora" if each == DORA else str(each),
    )


WAYS = [*((each, LORA) for each in PRECISIONS), ("fp32", DORA), ("bf16", DORA)]
OFTEN = {  # on the CPU `auto` is fp32; float32 is its own yardstick, and fp8 has two forms
    *((held, "fp16", LORA) for held in (FP16, BF16, FP8)),
    *((held, "bf16", LORA) for held in (BF16, FP8_WIDE)),
    *((held, "bf16", DORA) for held in (FP32, FP16, FP8)),
    *((held, "fp32", LORA) for held in (FP16, FP8)),
    *((held, "fp32", DORA) for held in (BF16, FP8_WIDE)),
    (FP8, "auto", LORA),
}


@tried(
    "held, precision, adapter", [(held, *way) for held in small_models.HELD for way in WAYS], OFTEN
)
def test_every_precision_trains_on_weights_held_in_any_dtype_as_on_float32(
    tmp_path, held, precision, adapter
):
    """To the bit, resumed or not.

    The values are the same, and the layers cast them to the same precision.
    """
    settings = short_run(precision=precision, adapter=adapter)
    resumed = trained(zoo.build("SD15", held), settings, tmp_path / "held.safetensors", stops=(1,))
    exact = trained(
        zoo.build("SD15", torch.float32, held), settings, tmp_path / "float32.safetensors"
    )
    assert same(check(resumed), check(exact)) and resumed.progress.losses == exact.progress.losses
    assert any("dora_scale" in name for name in resumed.module.tensors) == adapter.use_dora


HALVES, COMPUTED = (FP16, BF16), ("fp32", "bf16", "fp16")
CASTS = [  # what the host computes in: as on a CPU, and, with None, as on a GPU
    (held, precision, cast) for held in HALVES for precision in COMPUTED for cast in (FP32, None)
]
OFTEN_CAST = {
    *((FP16, "fp32", None), (FP16, "bf16", FP32), (FP16, "fp16", FP32)),
    *((BF16, "fp32", FP32), (BF16, "bf16", None), (BF16, "fp16", None)),
}


@tried("held, precision, cast", CASTS, OFTEN_CAST)
def test_a_dit_trains_float32_adapters_on_half_weights(tmp_path, held, precision, cast):
    """`auto` on a GPU is bf16 on weights that are held in fp16.

    Except in training, the host computes with such weights in fp16.
    """
    settings = short_run(precision=precision, targets="attention")
    half = trained(
        zoo.build("SD35", held, cast=cast), settings, tmp_path / "held.safetensors", stops=(2,)
    )
    exact = trained(
        zoo.build("SD35", torch.float32, held), settings, tmp_path / "float32.safetensors"
    )
    assert same(check(half), check(exact))


# the coarsest each time, over fewer steps
@tried("held, steps", [(FP8, 60), *((held, 300) for held in HALF)], {(FP8, 60)})
def test_after_many_steps_the_change_is_that_of_weights_held_in_float32(tmp_path, held, steps):
    """|dW_held - dW_float32| / |dW_float32| over all layers as one vector, both computed in fp32.

    The float32 weights have the values of the held dtype: rounding a base is another base, and not
    the training's.
    """
    settings, changes = short_run(steps=steps, targets="attention"), []
    for number, model in enumerate(
        (zoo.build("SD35", held), zoo.build("SD35", torch.float32, held))
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
    assert changes[1].norm() > steps / 300 and merging.relative_error(*changes) < 0.02


BESIDE = [(held, mode) for held in HALF for mode in ("anchored", "frozen")]


# each of them once
@tried("held, mode", BESIDE, {(FP16, "anchored"), (BF16, "frozen"), (FP8, "anchored")})
def test_beside_a_safety_module_it_trains_too(tmp_path, held, mode):
    """Losses are near those on float32 weights, not equal.

    The host rounds the safety change to what it holds.
    """
    texts = dict(zip(("nude", ""), small_models.conditionings(2, seed=2), strict=True))
    settings, losses = short_run(safety_mode=mode, anchor_every=2, steps=4), []
    for name, model in (
        ("held", zoo.build("SD15", held)),
        ("float32", zoo.build("SD15", torch.float32, held)),
    ):
        network = model.model.diffusion_model
        shapes = {
            layer: network.get_submodule(layer).weight.shape
            for layer in chosen(network, "cross-attention")
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


METHODS = [("esd-x", LORA), ("sdd", LORA), ("surrogate", LORA), ("esd-x", DORA)]
SAFETY = [(held, *method) for held in HALF for method in METHODS]


# but for ESD-x with a LoRA, which other files train; each of the rest once
@tried(
    "held, method, adapter",
    SAFETY,
    {(FP16, "esd-x", DORA), (BF16, "sdd", LORA), (FP8, "surrogate", LORA)},
)
def test_a_safety_lora_trains_as_on_float32(tmp_path, held, method, adapter):
    drawn = small_models.conditionings(3, seed=2)
    texts = dict(zip(("nude", "", "a cat"), drawn, strict=True))
    tensors = []
    for name, model in (
        ("held", zoo.build("SD15", held)),
        ("float32", zoo.build("SD15", torch.float32, held)),
    ):
        for stop in (1, 3):
            job = TrainingJob(
                tmp_path / f"{name}.safetensors",
                resume=True,
                on_step=lambda p, stop=stop: p.step < stop,
            )
            more = {"erasure": Erasure(method, sampling_steps=3, ema=0.5), "resolution": 32}
            more["surrogates"] = ["a cat"]
            result = train_safety(model, texts, ["nude"], short_run(adapter=adapter), job, **more)
        tensors.append(check(result))
    assert same(*tensors)


@pytest.mark.parametrize("held", HALF, ids=str)
def test_a_checkpoint_that_the_stock_loader_holds_in_half_trains(
    models, texts, dataset, tmp_path, held
):
    """As it is held when the loader is asked for a dtype; on a GPU it is so unasked."""
    file = str(models / "checkpoints" / assets.CHECKPOINT)
    options = {"output_vae": False, "output_clip": False, "model_options": {"dtype": held}}
    model = comfy.sd.load_checkpoint_guess_config(file, **options)[0]
    assert {value.dtype for value in model.model.diffusion_model.parameters()} == {held}
    job = TrainingJob(tmp_path / "task.safetensors")
    settings = Settings(steps=1, precision="fp32", **merging.SMALL)
    check(train_task(model, dataset, texts, settings, job))
