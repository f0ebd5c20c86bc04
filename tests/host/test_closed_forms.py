"""Methods without training, through the host's models: what they compute, write and refuse."""

import json

import merging
import model_table
import numpy as np
import pytest
import torch
from modular_safety_lora.host.denoiser import Denoiser
from modular_safety_lora.host.readers import read, text_readers
from modular_safety_lora.lab import zoo
from modular_safety_lora.merge import merge
from modular_safety_lora.training.engine import written
from modular_safety_lora.training.engine.checkpoint import CheckpointError
from modular_safety_lora.training.engine.job import TrainingJob
from modular_safety_lora.training.engine.loop import Cancelled
from modular_safety_lora.training.engine.previews import Previews
from modular_safety_lora.training.objectives import METHODS, Erasure, uce
from modular_safety_lora.training.safety import train_safety
from modular_safety_lora.training.settings import Settings
from modular_safety_lora.training.words import in_words

pytestmark = pytest.mark.usefixtures("one_thread", "no_chart")
CONCEPT, INSTEAD, KEPT = "nude", "a red car in the rain", "a cat"
BF16, FP8 = torch.bfloat16, torch.float8_e4m3fn


def computed(model, texts, file, method="uce", job=None, *, weight=1.0, **more):
    told = {"surrogates": (INSTEAD,), "retain": (KEPT,), "resolution": 32, **more}
    erasure, job = Erasure(method, retain_weight=weight), job or TrainingJob(file)
    return train_safety(model, texts, (CONCEPT,), Settings(), job, erasure=erasure, **told)


@torch.no_grad()
def outputs(model, family_noise, texts, *asked: str) -> list[torch.Tensor]:
    """The network's output for some prompts, on the same two noised pictures."""
    denoiser = Denoiser(model)
    clean = torch.cat([denoiser.latents_in(each) for each in family_noise])
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(5))
    levels = denoiser.sampling.sigmas
    sigma = levels[[len(levels) // 3, 2 * len(levels) // 3]].float()
    noisy = denoiser.noised(clean, noise, sigma)
    return [
        denoiser.output(noisy, sigma, denoiser.conditions([texts[each]] * 2, noisy))
        for each in asked
    ]


def shares(model, safe, noise, texts, instead: str = INSTEAD) -> tuple[float, float]:
    """How far the concept is from what is drawn instead, and how far what stays moved.

    |y(c) - y0(c*)| / |y0(c) - y0(c*)|, and |y(r) - y0(r)| / |y0(r) - y0(c)|.
    """
    concept, target, kept = outputs(model, noise, texts, CONCEPT, instead, KEPT)
    now, then = outputs(safe, noise, texts, CONCEPT, KEPT)
    left = (now - target).norm() / (concept - target).norm()
    return left.item(), ((then - kept).norm() / (kept - concept).norm()).item()


@pytest.fixture(scope="module")
def made(checkpoint, texts, tmp_path_factory):
    """(method, result, merged model) of UCE on the small checkpoint."""
    model = checkpoint[0].clone()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(written, "loss_plot", lambda *_, **__: None)
        result = computed(model, texts, tmp_path_factory.mktemp("uce") / "safety.safetensors")
    return result, merge.merge(model, [result.module])


def test_asked_for_the_concept_the_network_computes_what_it_does_for_the_surrogate(
    model, texts, made
):
    result, safe = made
    left, moved = shares(model, safe.model, [torch.zeros(1, 4, 4, 4)] * 2, texts)
    assert left < 0.2 and moved < 0.2, (left, moved)
    assert safe.report["retained_safety"] == pytest.approx(1.0, abs=1e-4)
    about, report = result.module.metadata, result.report
    assert about["msl.method"] == "uce" and about["ss_learning_rate"] == "0.0"
    assert report["steps"] == report["of_steps"] == 1
    assert report["layers"] == {"cross-attention": len(result.module.tensors) // 3}
    assert report["computed"]["kept"] > 0.99999
    assert report["loss"]["first"] == {"erase": 1.0, "retain": 0.0}
    assert report["loss"]["last"]["erase"] < 0.2 and report["loss"]["last"]["retain"] < 0.05
    assert "**Computed: safety.safetensors**, in " in in_words(report)
    assert KEPT in report["harmed"]


def tokens(texts, text: str) -> np.ndarray:
    """The tokens of a prompt as columns, float64."""
    return texts[text][0][0][0].double().numpy().T


def test_a_weight_is_the_papers_of_the_prompts_own_tokens(model, texts, made):
    """Equation 7 of UCE with the text encoder's tokens and a loaded weight, by numpy."""
    name = f"{merging.BLOCK}.attn2.to_k"
    w0 = merging.base(model, name).double().numpy()
    concept, instead = tokens(texts, CONCEPT), tokens(texts, INSTEAD)
    ridge = uce.LAMBDA * np.square(concept).sum() / len(concept)
    first, second = ridge * w0, ridge * np.eye(len(concept))
    first, second = first + w0 @ instead @ concept.T, second + concept @ concept.T
    for kept in (KEPT, INSTEAD, ""):
        products = tokens(texts, kept) @ tokens(texts, kept).T
        first, second = first + w0 @ products, second + products
    expected = first @ np.linalg.inv(second) - w0
    change = (merging.effective(made[1].model, name) - merging.base(model, name)).double().numpy()
    assert np.linalg.norm(change - expected) < 3e-3 * np.linalg.norm(expected)
    assert np.linalg.norm(expected) > 1e-2 * np.linalg.norm(w0)


def small(family: str = "Flux", held: torch.dtype = torch.float32):
    """One of the zoo's models and the texts of it."""
    drawn = zoo.conditionings(family, 4)
    return zoo.build(family, held), dict(zip((CONCEPT, INSTEAD, KEPT, ""), drawn, strict=True))


def test_without_a_surrogate_the_empty_prompt_is_drawn_and_what_is_told_stays(tmp_path):
    model, texts = small()
    found = {}
    for name, retain in (("held", (KEPT,)), ("bare", ())):
        result = computed(
            model, texts, tmp_path / f"{name}.safetensors", surrogates=("",), retain=retain
        )
        assert "surrogates" not in json.loads(result.module.metadata["msl.training"])
        safe = merge.merge(model, [result.module]).model
        found[name] = shares(model, safe, zoo.latents("Flux", 2), texts, "")
        assert found[name][0] < 0.2
        assert shares(model, safe, zoo.latents("Flux", 2), texts)[0] > 0.5
    assert found["held"][1] < 0.2 * found["bare"][1], found


def test_what_stays_weighs_as_told(tmp_path):
    model, texts = small()
    light, heavy = (
        computed(model, texts, tmp_path / f"{each}.safetensors", weight=each).report["loss"]["last"]
        for each in (1.0, 8.0)
    )
    assert 0 < heavy["retain"] < 0.3 * light["retain"] and heavy["erase"] > light["erase"] > 0


CASES = [("Flux", FP8)]  # test_methods_held.py has the others too
REFUSED = model_table.PAST_LINEAR
LONG = [(each, FP8) for each in ("SD15", "SDXL", "ZImage")]
LONG += [(each, BF16) for each in zoo.TWINS if each not in REFUSED]


@pytest.mark.parametrize(
    ("family", "held"), [*CASES, *(pytest.param(*each, marks=pytest.mark.long) for each in LONG)]
)
def test_it_computes_and_merges_on_every_shape_however_it_is_held(family, held, tmp_path):
    """A text encoder's 77 tokens lie close together; of as many random ones few can be moved."""
    model, texts = small(family, held)
    side = zoo.TWINS[family].side
    for method in model_table.RULES:
        file = tmp_path / f"{method}.safetensors"
        result = computed(model, texts, file, method, resolution=side)
        assert result.report["steps"] == METHODS[method].rounds
        assert all(value.isfinite().all() for value in result.module.tensors.values())
        merged = merge.merge(model, [result.module])
        assert merged.report["retained_safety"] == pytest.approx(1.0, abs=2e-2)
        left, _ = shares(model, merged.model, zoo.latents(family, 2), texts)
        assert left < (0.95 if zoo.TWINS[family].text.fixed else 0.4), left


READERS = {
    "SD15": ("attn2.to_k", "attn2.to_v"),
    "SDXL": ("attn2.to_k", "attn2.to_v"),
    "SD35": ("context_embedder", "y_embedder.mlp.0"),
    "Flux": ("txt_in", "vector_in.in_layer"),
    "ZImage": ("cap_embedder.1",),
    "WAN21_T2V": ("text_embedding.0",),
}


@pytest.mark.parametrize(
    "family",
    [
        *READERS,
        *(pytest.param(each, marks=pytest.mark.long) for each in zoo.TWINS if each not in READERS),
    ],
)
def test_the_layers_that_a_prompt_enters_by_are_found_whatever_they_are_called(family):
    denoiser = Denoiser(zoo.build(family))
    one, other = zoo.conditionings(family, 2)
    entrance = text_readers(denoiser, one, other)
    layers = entrance.layers
    assert layers and bool(entrance.past) == (family in REFUSED)
    if family in READERS:
        named = [name for name in layers if not name.startswith("label_emb")]
        assert all(name.endswith(READERS[family]) for name in named)
        assert all(any(name.endswith(end) for name in named) for end in READERS[family])
    seen = [read(denoiser, layers, each) for each in (one, other)]
    assert all(not torch.equal(*(each[name] for each in seen)) for name in layers)


def test_what_is_cancelled_writes_nothing_and_what_trained_in_steps_is_not_taken_over(tmp_path):
    (model, texts), steps = small(), []
    file = tmp_path / "safety.safetensors"

    def stop(progress) -> bool:
        steps.append(progress.step)
        return progress.step < 2

    with pytest.raises(Cancelled, match="nothing was written"):
        computed(model, texts, file, "rece", TrainingJob(file, on_step=stop))
    assert steps == [0, 1, 2] and not list(tmp_path.iterdir())
    job = TrainingJob(file, resume=True, on_step=lambda progress: progress.step < 1)
    more = {"erasure": Erasure(sampling_steps=2), "resolution": 32}
    train_safety(model, texts, (CONCEPT,), Settings(steps=2), job, **more)
    before = file.read_bytes()
    with pytest.raises(CheckpointError, match="trained in steps, which uce does not"):
        computed(model, texts, file, job=TrainingJob(file, resume=True))
    assert file.read_bytes() == before
    file.unlink()
    file.with_suffix(".resume").unlink()
    computed(model, texts, file, job=TrainingJob(file, on_step=lambda progress: not progress.step))
    with pytest.raises(FileExistsError, match="That run is finished"):
        computed(model, texts, file, job=TrainingJob(file, resume=True))


def test_previews_are_of_the_base_and_of_what_was_computed(tmp_path):
    model, texts = small()
    looks = {"every": 1, "resolution": 32, "sampling_steps": 1}
    previews = Previews([CONCEPT], texts, zoo.vae("Flux"), tmp_path / "previews", **looks)
    file = tmp_path / "safety.safetensors"
    result = computed(model, texts, file, "rece", TrainingJob(file, previews=previews))
    found = result.report["previews"]
    assert [each["step"] for each in found] == [0, 1, 2, 3, 4]
    assert found[-1]["retained_safety"] == pytest.approx(1.0, abs=1e-3)
    assert found[-1]["images"] == 1


def test_a_formula_that_changes_nothing_and_numbers_that_are_none_are_refused(tmp_path):
    model, texts = small()
    file = tmp_path / "safety.safetensors"
    with pytest.raises(ValueError, match="changes nothing"):
        computed(model, texts | {INSTEAD: texts[CONCEPT]}, file)
    broken = [[texts[KEPT][0][0] * float("nan"), texts[KEPT][0][1]]]
    with pytest.raises(ValueError, match="not finite"):
        computed(model, texts | {KEPT: broken}, file)
    with pytest.raises(ValueError, match="1 concept prompt and 2 surrogates"):
        computed(model, texts, file, surrogates=(INSTEAD, KEPT))
    assert not list(tmp_path.iterdir())
