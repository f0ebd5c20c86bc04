"""A prompt that still draws the concept, looked for in every step of a safety run (AdvUnlearn)."""

import json

import pytest
import torch
from modular_safety_lora.host.denoiser import Denoiser
from modular_safety_lora.host.gradients import NoGradient, recomputing
from modular_safety_lora.lab import zoo
from modular_safety_lora.training import safety
from modular_safety_lora.training.adapter_settings import AdapterSettings
from modular_safety_lora.training.engine.adapters import adapters_in
from modular_safety_lora.training.engine.job import TrainingJob
from modular_safety_lora.training.objectives import METHODS, Erasure
from modular_safety_lora.training.objectives.adversary import STRIDE, hardest
from modular_safety_lora.training.objectives.closed_form import ClosedForm
from modular_safety_lora.training.objectives.method import Moment
from modular_safety_lora.training.settings import Settings

pytestmark = pytest.mark.usefixtures("one_thread", "no_chart")
TOLD = ("nude", "naked person")
TEXT = "c_crossattn"  # as the host calls what a network reads of a prompt


@pytest.fixture
def student(model, texts):
    """(denoiser, adapters, moment, told): a student that is no longer the base, on two prompts."""
    denoiser = Denoiser(model)
    draw = torch.Generator().manual_seed(1)
    noisy = torch.randn(2, 4, 4, 4, generator=draw)
    sigma = denoiser.sampling.sigmas[torch.tensor([300, 700])].float()
    told = [texts[each] for each in TOLD]
    concept, null = (denoiser.conditions(some, noisy) for some in (told, [texts[""]] * 2))
    network = denoiser.base.diffusion_model
    layers = [name for name, _ in network.named_modules() if name.endswith(("to_k", "to_v"))]
    with adapters_in(network, layers, AdapterSettings(2, 2.0)) as adapters:
        for value in adapters.parameters.values():
            value.data += 0.3 * torch.randn(value.shape, generator=draw)
        yield denoiser, adapters, Moment(noisy, sigma, concept, null), told


def gaps(denoiser, adapters, moment, conditions) -> torch.Tensor:
    """|| y(x_t, conditions) - y0(x_t, c) ||^2 of each picture."""
    about = moment.noisy, moment.sigma
    with torch.no_grad():
        with adapters.switched_off():
            base = denoiser.output(*about, moment.concept)
        return (denoiser.output(*about, conditions) - base).square().sum(dim=(1, 2, 3))


def test_a_step_goes_against_the_gradient_by_the_stride_each_prompt_for_itself(student):
    denoiser, adapters, moment, told = student
    (_, found), (_, plain) = hardest(*student, 1)[0], moment.concept[0]
    for row, (text, about) in enumerate(each[0] for each in told):
        noisy, sigma = moment.noisy[row : row + 1], moment.sigma[row : row + 1]
        with torch.no_grad(), adapters.switched_off():
            base = denoiser.output(noisy, sigma, denoiser.conditions([told[row]], noisy))
        own = text.clone().requires_grad_()
        asked = denoiser.conditions([[(own, about)]], noisy)
        (denoiser.output(noisy, sigma, asked) - base).square().mean().backward()
        wanted = text - STRIDE * text.norm() * own.grad / own.grad.norm()
        torch.testing.assert_close(found[TEXT][row : row + 1], wanted.detach())
    assert not torch.equal(found[TEXT], plain[TEXT])


def test_the_search_finds_a_prompt_that_draws_more_of_the_concept(student):
    denoiser, adapters, moment, _ = student
    found = [gaps(denoiser, adapters, moment, hardest(*student, steps)) for steps in (0, 1, 4)]
    assert (found[1] < found[0]).all(), found
    assert found[2].sum() < found[1].sum() < found[0].sum(), found


def test_a_search_leaves_no_gradient_with_what_trains(student):
    _, adapters, *_ = student
    hardest(*student, 2)
    assert all(value.grad is None for value in adapters.parameters.values())


def trained(model, texts, file, **told):
    settings = Settings(steps=4, learning_rate=3e-3, adapter=AdapterSettings(4, 4.0))
    erasure = Erasure(sampling_steps=3, **told)
    more = {"erasure": erasure, "retain": ("a cat",), "resolution": 32}
    more["surrogates"] = ["a dog"] * 2 if METHODS[erasure.method].surrogates else []
    return safety.train_safety(model, texts, TOLD, settings, TrainingJob(file), **more)


STEPPED = [name for name, each in METHODS.items() if not isinstance(each, ClosedForm)]
LATER = {"esd-u", "gem", "sdd", "spm"}  # of the same code: in the long run


@pytest.mark.parametrize(
    "method",
    [pytest.param(each, marks=pytest.mark.long if each in LATER else ()) for each in STEPPED],
)
def test_every_method_erases_what_the_search_found(model, texts, tmp_path, method, monkeypatch):
    seen = []

    def watched(*about):
        seen.append((about[2].concept, hardest(*about)))
        return seen[-1][1]

    monkeypatch.setattr(safety, "hardest", watched)
    result = trained(model, texts, tmp_path / "x.safetensors", method=method, adversarial_steps=1)
    before, after, *_ = result.progress.losses
    assert before.keys() == {"erase", "adversary", "retain"}
    assert before["adversary"] == before["erase"] and after["adversary"] != after["erase"]
    # at the start the student is the base: there is nothing to look for
    first, last = ([each[0][1][TEXT] for each in both] for both in (seen[0], seen[-1]))
    assert torch.equal(*first) and not torch.equal(*last)
    assert json.loads(result.module.metadata["msl.training"])["erasure"]["adversarial_steps"] == 1


@pytest.mark.parametrize("recomputes", [False, True])
@pytest.mark.parametrize("family", ["Flux", "LTXV"])
def test_the_gradient_is_right_where_blocks_write_over_their_inputs(
    family, recomputes, tmp_path, monkeypatch
):
    model, drawn, alike = zoo.build(family), zoo.conditionings(family, 3), []

    def watched(*about):
        found = hardest(*about)
        with recomputing(model.model.diffusion_model):  # which is tested against finite differences
            other = hardest(*about)
        (_, before), (_, one), (_, two) = about[2].concept[0], found[0], other[0]
        both = ((each[TEXT] - before[TEXT]).flatten() for each in (one, two))
        alike.append(torch.cosine_similarity(*both, dim=0).item())
        return found

    monkeypatch.setattr(safety, "hardest", watched)
    texts = dict(zip((*TOLD, ""), drawn, strict=True))
    told = {"surrogates": ["naked person"], "resolution": zoo.TWINS[family].side}
    erasure = Erasure("surrogate", sampling_steps=2, adversarial_steps=1)
    adapter = AdapterSettings(2, 2.0)
    settings = Settings(steps=2, adapter=adapter, gradient_checkpointing=recomputes)
    job = TrainingJob(tmp_path / "x.safetensors")
    safety.train_safety(model, texts, ["nude"], settings, job, erasure=erasure, **told)
    assert alike[1] > 0.9999, alike


def test_a_network_without_a_way_back_is_said(student, monkeypatch):
    def none(*_, **__):
        raise RuntimeError("element 0 of tensors does not require grad and has no grad_fn")

    monkeypatch.setattr(torch.autograd, "grad", none)
    with pytest.raises(NoGradient, match="element 0 of tensors does not require grad"):
        hardest(*student, 1)


def test_without_it_a_run_is_what_it_was(model, texts, tmp_path, monkeypatch):
    monkeypatch.setattr(safety, "hardest", None)
    result = trained(model, texts, tmp_path / "x.safetensors")
    assert result.progress.losses[0].keys() == {"erase", "retain"}


@pytest.mark.parametrize("method", ["uce", "rece"])
def test_a_formula_has_no_steps_to_look_in(method):
    with pytest.raises(ValueError, match=f"adversarial_steps is 3, and the method {method}"):
        Erasure(method, adversarial_steps=3)
