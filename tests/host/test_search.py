"""The search for words before a prompt: its loss, gradients and steps, and what it leaves alone."""

import pytest
import small_clips
import torch
from modular_safety_lora.host.denoiser import Denoiser
from modular_safety_lora.host.gradients import kept, still
from modular_safety_lora.host.prefixes import encoders_of, vocabulary, with_prefix
from modular_safety_lora.lab import zoo
from modular_safety_lora.searching.kinds import KINDS, Embedding, Tokens, on_simplex
from modular_safety_lora.searching.search import SearchError, search, slopes_of
from modular_safety_lora.searching.settings import Searching

pytestmark = pytest.mark.usefixtures("one_thread")
TEXT = "a cat"


# SDXL has the dearest network and the one text encoder of two parts
EVERY = list(small_clips.SHAPES)
SHAPES = ["SD15", *(pytest.param(each, marks=pytest.mark.long) for each in EVERY if each != "SD15")]


@pytest.fixture(scope="module", params=SHAPES)
def shape(request):
    """A family's name, its small MODEL and CLIP, and latents that it is asked for."""
    model, clip = small_clips.pair(request.param)
    return request.param, model, clip, zoo.latents(request.param, 1)[0]


def vocabularies(clip) -> dict[str, torch.Tensor]:
    return {name: vocabulary(each) for name, each in encoders_of(clip).items()}


def about(denoiser: Denoiser, picture: torch.Tensor, seed: int = 2):
    """Clean latents, noise and the noise level in the middle."""
    clean = denoiser.latents_in(picture)
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(seed))
    table = denoiser.sampling.sigmas
    return clean, noise, table[len(table) // 2].float()[None]


def by_hand(denoiser: Denoiser, clip, prefix, told) -> float:
    """The denoising loss of a prompt with rows before it, by the model's own rules, in float64."""
    clean, noise, sigma = told
    noisy = denoiser.sampling.noise_scaling(sigma, noise.clone(), clean)
    conditions = denoiser.conditions([with_prefix(clip, TEXT, prefix)], clean)
    output = denoiser.output(noisy, sigma, conditions).double()
    return (output - denoiser.target(clean, noisy, sigma).double()).square().mean().item()


@pytest.mark.parametrize("shape", EVERY, indirect=True)
def test_the_loss_is_the_models_own_and_its_gradient_the_one_of_finite_differences(shape):
    _, model, clip, picture = shape
    denoiser, rows = Denoiser(model), Embedding(vocabularies(clip), 2, 1)
    told = about(denoiser, picture)
    with still(model.model, clip.cond_stage_model), kept(True):
        loss, slopes = slopes_of(denoiser, rows, told, with_prefix(clip, TEXT, rows.rows()))
    with torch.no_grad():
        assert loss == pytest.approx(by_hand(denoiser, clip, rows.rows(), told), rel=1e-5)
        size = torch.cat([each.flatten() for each in slopes]).double().norm().item()
        step = 3e-3 / size
        ends = [
            by_hand(
                *(denoiser, clip),
                {
                    name: row + sign * step * slope
                    for (name, row), slope in zip(rows.rows().items(), slopes, strict=True)
                },
                told,
            )
            for sign in (1, -1)
        ]
    assert (ends[0] - ends[1]) / (2 * step) == pytest.approx(size**2, rel=0.02)


def test_steps_lower_the_loss_that_they_are_taken_on(shape):
    _, model, clip, picture = shape
    denoiser, losses = Denoiser(model), []
    told, rows = about(denoiser, picture), Embedding(vocabularies(clip), 3, 1)
    with still(model.model, clip.cond_stage_model):
        for _ in range(6):
            with kept(True):
                prompt = with_prefix(clip, TEXT, rows.rows())
                loss, slopes = slopes_of(denoiser, rows, told, prompt)
            rows.step(slopes)
            losses.append(loss)
    assert losses == sorted(losses, reverse=True) and losses[-1] < losses[0]


def test_a_search_is_the_same_each_time_and_leaves_the_models_as_they_were(shape):
    _, model, clip, picture = shape
    networks = model.model, clip.cond_stage_model
    before = [(each.clone(), each.requires_grad) for one in networks for each in one.parameters()]
    how = Searching(kind="embedding", levels=1, iterations=3)
    asked = []

    def is_hit(conditioning) -> bool:
        asked.append(conditioning[0][0])
        return False

    found = search(model, clip, TEXT, picture, how, is_hit=is_hit)
    assert not found.hit and len(found.losses) == len(asked) == 1
    assert asked[0].grad_fn is None
    again = search(model, clip, TEXT, picture, how, is_hit=is_hit)
    for name, each in found.prefix.items():
        assert torch.equal(each, again.prefix[name]), "the same seed finds the same"
    now = [each for one in networks for each in one.parameters()]
    for (value, flag), each in zip(before, now, strict=True):
        assert torch.equal(value, each) and each.requires_grad == flag and each.grad is None


def test_the_first_picture_that_is_flagged_ends_it(shape):
    _, model, clip, picture = shape
    steps, answers = [], iter((False, True))
    found = search(
        *(model, clip, TEXT, picture, Searching(kind="tokens", levels=5, iterations=2)),
        is_hit=lambda _: next(answers),
        on_step=lambda: steps.append(1),
    )
    assert found.hit and len(found.losses) == 2 and len(steps) == 4
    for name, each in encoders_of(clip).items():
        assert torch.equal(found.prefix[name], vocabulary(each)[list(found.tokens)])


def test_words_by_chance_are_others_each_time_and_learn_nothing(shape):
    _, model, clip, picture = shape
    seen, how = [], Searching(kind="chance", levels=3)
    told = model, clip, TEXT, picture, how
    found = search(*told, is_hit=lambda each: bool(seen.append(each[0][0])))
    assert (
        found.losses == ()
        and len(seen) == 3
        and not any(torch.equal(seen[0], each) for each in seen[1:])
    )


def test_a_model_whose_loss_is_not_a_number_is_an_error_not_a_prompt_that_held(shape):
    key, _, clip, picture = shape
    broken, _ = small_clips.pair(key)
    next(broken.model.diffusion_model.parameters()).data.fill_(float("nan"))
    for kind in ("tokens", "embedding"):
        with pytest.raises(SearchError, match="the loss at noise level .* is nan"):
            search(broken, clip, TEXT, picture, Searching(kind=kind), is_hit=lambda _: False)


def test_a_model_that_does_not_read_the_text_is_an_error_too(shape):
    key, _, clip, picture = shape
    deaf, _ = small_clips.pair(key)
    for name, each in deaf.model.diffusion_model.named_parameters():
        if any(
            part in name for part in ("attn2.to_out", "context_embedder", "y_embedder", "label")
        ):
            each.data.zero_()
    with pytest.raises(SearchError, match="no gradient of the loss reaches"):
        search(deaf, clip, TEXT, picture, Searching(), is_hit=lambda _: False)


def test_the_gradient_of_a_token_goes_straight_to_its_chances_and_is_cut():
    words = {"clip_l": torch.randn(50, 4), "clip_g": torch.randn(50, 6)}
    rows = Tokens(words, 3, 1)
    found = rows.rows()
    pulls = {name: 3.0 * torch.randn(3, each.shape[1]) for name, each in words.items()}
    total = sum((found[name] * pulls[name]).sum() for name in words)
    (slope,) = torch.autograd.grad(total, rows.values)
    expected = sum(pulls[name] @ each.T for name, each in words.items())
    assert torch.allclose(slope, expected.clamp(-1, 1), atol=1e-5)
    assert (expected.abs() > 1).any() and (expected.abs() < 1).any()
    rows.step((slope,))
    assert torch.allclose(rows.values[0].sum(dim=1), torch.ones(3)), "on the simplex"
    least = slope.argmin(dim=1)
    assert (rows.values[0].gather(1, least[:, None]) > 1 / 50).all(), "against the gradient"


def test_the_projection_is_the_nearest_point_of_the_simplex():
    values = torch.randn(20, 30, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found = on_simplex(values)
    for row, made in zip(values, found, strict=True):
        low, high = row.min() - 1, row.max()
        for _ in range(100):  # the authors' way: the shift by bisection
            middle = (low + high) / 2
            low, high = (middle, high) if (row - middle).clamp(0, 1).sum() > 1 else (low, middle)
        assert torch.allclose(made, (row - low).clamp(0, 1), atol=1e-9)


def test_every_kind_is_a_choice():
    assert set(KINDS) == set(Searching.__dataclass_fields__["kind"].metadata["row"]["choices"])
