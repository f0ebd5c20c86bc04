"""The method surrogate: something else is drawn in the concept's place, on every shape of model."""

import dataclasses
import json

import comfy.sample
import comfy.samplers
import merging
import pytest
import torch
from comfy.k_diffusion.sampling import sample_euler
from modular_safety_lora.host.denoiser import Denoiser
from modular_safety_lora.host.families import suiting
from modular_safety_lora.host.prompts import encode_texts
from modular_safety_lora.lab import zoo
from modular_safety_lora.lab.world import sets, text
from modular_safety_lora.merge import merge
from modular_safety_lora.training import harm
from modular_safety_lora.training.adapter_settings import AdapterSettings
from modular_safety_lora.training.engine.checkpoint import CheckpointError
from modular_safety_lora.training.engine.job import TrainingJob
from modular_safety_lora.training.near import nearest
from modular_safety_lora.training.objectives import METHODS, Erasure
from modular_safety_lora.training.prompting import Erased
from modular_safety_lora.training.safety import train_safety
from modular_safety_lora.training.settings import Settings
from modular_safety_lora.training.surrogates import paired
from modular_safety_lora.training.words import in_words

pytestmark = pytest.mark.usefixtures("one_thread", "no_chart")
CONCEPT, OTHER, INSTEAD, KEPT = "nude", "naked person", "a red car in the rain", "a cat"
ERASURE = Erasure("surrogate", sampling_steps=3)


def trained(model, texts, file, surrogates, *, resolution=32, **settings):
    given = {"steps": 12, "learning_rate": 3e-3, "adapter": AdapterSettings(4, 4.0), **settings}
    more = {"erasure": ERASURE, "surrogates": surrogates, "retain": (KEPT,)}
    concepts, job = (CONCEPT, OTHER)[: len(surrogates)], TrainingJob(file)
    more["resolution"] = resolution
    return train_safety(model, texts, concepts, Settings(**given), job, **more)


@torch.no_grad()
def distances(model, safe, texts, concept: str, instead: str) -> tuple[float, float]:
    """|y(c) - y0(c*)|^2 of the safe model and of the base, at two noise levels."""
    denoiser = Denoiser(model)
    noise = torch.randn(2, 4, 4, 4, generator=torch.Generator().manual_seed(5))
    sigma = denoiser.sampling.sigmas[[300, 700]].float()
    noisy = denoiser.noised(torch.zeros_like(noise), noise, sigma)
    told = [denoiser.conditions([texts[each]] * 2, noisy) for each in (concept, instead)]
    before, target = (denoiser.output(noisy, sigma, each) for each in told)
    after = Denoiser(safe).output(noisy, sigma, told[0])
    near, far = ((each - target).square().mean().item() for each in (after, before))
    return near, far


@pytest.mark.parametrize("kind", ["eps", "flow", pytest.param("v", marks=pytest.mark.long)])
def test_the_concept_moves_to_what_is_named_for_it_and_the_file_says_so(
    model, texts, tmp_path, kind
):
    model = merging.of_kind(model, kind)
    result = trained(model, texts, tmp_path / "safety.safetensors", (INSTEAD, KEPT))
    safe = merge.merge(model, [result.module]).model
    near, far = distances(model, safe, texts, CONCEPT, INSTEAD)
    assert near < 0.8 * far, (near, far)
    told = json.loads(result.module.metadata["msl.training"])
    assert told["surrogates"] == [INSTEAD, KEPT] and told["concepts"] == [CONCEPT, OTHER]
    assert result.module.metadata["msl.method"] == "surrogate"
    assert result.report["loss"]["last"].keys() == {"erase", "retain"}
    assert result.report["harmed"] == pytest.approx({KEPT: by_hand(model, safe, texts)}, rel=1e-3)
    assert f"| {KEPT}" in in_words(result.report)


def test_every_prompt_of_a_batch_goes_to_its_own_surrogate(model, texts, tmp_path, monkeypatch):
    method, seen = METHODS["surrogate"], []

    def loss(denoiser, adapters, moment, erasure):
        seen.append((moment.concept, moment.surrogate))
        return method.loss(denoiser, adapters, moment, erasure)

    monkeypatch.setitem(METHODS, "surrogate", dataclasses.replace(method, loss=loss))
    trained(model, texts, tmp_path / "x.safetensors", (INSTEAD, KEPT), steps=3, batch_size=2)

    def said(conditions) -> list[str]:
        """The prompt of each picture, by what the network is told."""
        ((places, told),) = conditions
        rows = dict(zip(places, told["c_crossattn"], strict=True))
        known = {text: each[0][0][0] for text, each in texts.items()}
        return [
            next(text for text, each in known.items() if torch.equal(rows[place], each))
            for place in sorted(rows)
        ]

    pairs = [pair for both in seen for pair in zip(*map(said, both), strict=True)]
    assert set(pairs) == {(CONCEPT, INSTEAD), (OTHER, KEPT)} and len(pairs) == 6


@torch.no_grad()
def by_hand(model, safe, texts) -> float:
    """|d_s - d_0| / |d_0| at 0.8 of the schedule, on a picture that the stock sampler half-made."""
    sampling = model.get_model_object("model_sampling")
    levels = [round(1 - number * 0.05, 6) for number in range(5)]
    sigmas = torch.tensor([float(sampling.percent_to_sigma(1 - each)) for each in levels] + [0.0])
    sigmas[0] = float(sampling.sigma_max)

    def cut(wrap, x, sigmas, extra_args=None, **unused):
        return sample_euler(wrap, x, sigmas[:-1], extra_args=extra_args, disable=True)

    noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    x = comfy.sample.sample_custom(
        *(model, noise, suiting(model).guidance, comfy.samplers.KSAMPLER(cut), sigmas),
        *(texts[KEPT], texts[""], torch.zeros_like(noise)),
        disable_pbar=True,
    )
    x = model.model.process_latent_in(x)
    said = []
    for each in (model, safe):
        denoiser = Denoiser(each)
        both = [denoiser.conditions([texts[text]], x) for text in (KEPT, "")]
        told, empty = (denoiser.output(x, sigmas[-2:-1], each) for each in both)
        said.append(told - empty)
    return ((said[1] - said[0]).norm() / said[0].norm()).item()


SHAPES = [("SDXL", torch.bfloat16), ("Flux", torch.float8_e4m3fn), ("ZImage", torch.bfloat16)]
LONG = [
    *(("SD15", each) for each in (torch.bfloat16, torch.float8_e4m3fn)),
    *(("SDXL", torch.float8_e4m3fn), ("Flux", torch.bfloat16), ("ZImage", torch.float8_e4m3fn)),
]


@pytest.mark.parametrize(
    ("family", "held"), [*SHAPES, *(pytest.param(*each, marks=pytest.mark.long) for each in LONG)]
)
def test_it_trains_and_merges_on_every_shape_however_it_is_held(family, held, tmp_path):
    model = zoo.build(family, held)
    drawn = zoo.conditionings(family, 4)
    texts = dict(zip((CONCEPT, INSTEAD, KEPT, ""), drawn, strict=True))
    file, side = tmp_path / "safety.safetensors", zoo.TWINS[family].side
    result = trained(model, texts, file, (INSTEAD,), resolution=side, steps=3)
    assert all(value.isfinite().all() for value in result.module.tensors.values())
    losses = [step["erase"] for step in result.progress.losses]
    assert all(loss > 0 for loss in losses)
    merged = merge.merge(model, [result.module])
    assert merged.report["retained_safety"] == pytest.approx(1.0, abs=1e-2)


def test_a_run_that_was_told_another_surrogate_does_not_go_on(model, texts, tmp_path):
    file, settings = tmp_path / "safety.safetensors", Settings(steps=2)

    def begun(surrogate: str):
        job = TrainingJob(file, resume=True, on_step=lambda progress: progress.step < 1)
        more = {"erasure": ERASURE, "surrogates": (surrogate,), "resolution": 32}
        return train_safety(model, texts, (CONCEPT,), settings, job, **more)

    assert begun(INSTEAD).progress.cancelled
    with pytest.raises(CheckpointError, match="made with other data or settings"):
        begun(KEPT)


@pytest.mark.parametrize("surrogates", [(), ("",), (INSTEAD,)])
def test_a_prompt_without_a_surrogate_is_refused_with_the_way_out(
    model, texts, tmp_path, surrogates
):
    job, file = TrainingJob(tmp_path / "x.safetensors"), tmp_path / "x.safetensors"
    more = {"erasure": ERASURE, "surrogates": surrogates}
    with pytest.raises(ValueError, match=r"what to draw in place of .* Write it in surrogate"):
        train_safety(model, texts, (CONCEPT, OTHER), Settings(steps=1), job, **more)
    assert not file.exists()


def test_one_surrogate_is_for_all_prompts_or_each_has_its_own_or_a_template_takes_them():
    told = Erased(concept="nude, bare", surrogate=("a statue",))
    assert told.pairs == [("nude", "a statue"), ("bare", "a statue")]
    told = Erased(concept="nude, bare", surrogate=("a statue", "a coat"))
    assert told.others("surrogate")["surrogates"] == ["a statue", "a coat"]
    told = Erased(concept="{} by Hokusai", surrogate=("a wave", "a bridge"))
    assert told.pairs == [("a wave by Hokusai", "a wave"), ("a bridge by Hokusai", "a bridge")]
    assert told.texts == ["a wave by Hokusai", "a wave", "a bridge by Hokusai", "a bridge"]
    assert paired(["nude", "nude"], ["a statue", "a coat"]) == [("nude", "a statue")]
    assert Erased(concept="nude").pairs == [("nude", "")]
    assert Erased(concept="nude").others("esd-x")["surrogates"] == [""]


@pytest.mark.parametrize(
    ("told", "method", "message"),
    [
        ({"concept": "nude"}, "surrogate", "what to draw in place of 1 prompt"),
        ({"concept": "a, b, c", "surrogate": ("x", "y")}, "surrogate", "3 concept prompts and 2"),
        ({"concept": "nude", "surrogate": ("x",)}, "esd-x", "the method esd-x does not use it"),
        ({"concept": "{} by Hokusai"}, "surrogate", "is a template: give surrogate"),
        ({"concept": "{} by Hokusai, nude", "surrogate": ("x", "y")}, "surrogate", "and 'nude'"),
        ({"concept": "nude", "surrogate": ("Nude",)}, "surrogate", "is its own surrogate"),
        ({"concept": "nude, gun", "surrogate": ("Gun", "rose")}, "uce", "and is taken away too"),
    ],
)
def test_what_cannot_be_matched_says_why(told, method, message):
    with pytest.raises(ValueError, match=message):
        Erased(**told).others(method)


@pytest.mark.long
def test_the_nearest_of_harmless_names_are_those_that_the_encoder_was_made_to_keep_near():
    """The emoji world's encoder puts tools near weapons: the nearest 24 of 130 names are they."""
    styled = {name: sets.caption(name, "noto") for name in sets.HARMLESS}
    asked = [sets.caption(name, "noto", concept=True) for name in sets.WEAPONS]
    texts = encode_texts(text.encoder(), [*asked, *styled.values()])
    found = nearest(texts, asked, list(styled.values()), len(sets.TOOLS))
    assert set(found) == {styled[name] for name in sets.TOOLS}


def test_what_cannot_be_measured_comes_first_and_is_not_called_unharmed(
    model, texts, tmp_path, monkeypatch
):
    module = trained(model, texts, tmp_path / "x.safetensors", (INSTEAD,), steps=1).module
    safe = merge.merge(model, [module]).model
    asked = [KEPT, "a dog", INSTEAD]
    empty = texts | {"a dog": texts[""]}  # it says nothing: 0 / 0
    found = harm.harmed(model, lambda: safe, empty, asked, 32)
    assert next(iter(found)) == "a dog" and found["a dog"] is None
    assert found[KEPT] is not None and found[KEPT] > 0

    def full(*_):
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr(harm, "half_made", full)
    assert harm.harmed(model, lambda: safe, texts, asked, 32) == dict.fromkeys(asked)
