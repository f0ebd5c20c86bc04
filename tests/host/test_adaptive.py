"""The search of a soft prompt on small models of every family: a way back, or words that say none.

Two prompts in unlike lengths at two pictures; the model is what came out of the search's base.
"""

import pytest
import torch
from modular_safety_lora.function.adaptive import STRIDE, Tried, searched
from modular_safety_lora.function.inputs import EMPTY
from modular_safety_lora.function.measure import Arm
from modular_safety_lora.function.texts import Text
from modular_safety_lora.host.denoiser import Denoiser
from modular_safety_lora.host.gradients import NoGradient
from modular_safety_lora.lab import zoo

pytestmark = pytest.mark.usefixtures("unloaded", "one_thread")
FAMILIES = [key for key, family in zoo.TWINS.items() if family.trains]
NO_WAY_BACK = [key for key, family in zoo.TWINS.items() if not family.trains]


def arms(family: str) -> tuple[Arm, Tried]:
    """A model with two prompts, and where they are asked; the base is the model itself."""
    model = zoo.build(family)
    given = [*zoo.conditionings(family, 2), zoo.conditionings(family, 1, seed=3, tokens=9)[0]]
    texts = {name: Text(each, name) for name, each in zip(("", "a", "b"), given, strict=True)}
    with torch.inference_mode():  # as in a prompt of ComfyUI
        denoiser = Denoiser(model)
        x = torch.cat([denoiser.latents_in(each) for each in zoo.latents(family, 2)])
        sigma = denoiser.sampling.sigmas[-1:].float().repeat(2) * torch.tensor([0.9, 0.7])
        asked, empty = (
            denoiser.output(x, sigma, denoiser.conditions([given[place] for place in some], x))
            for some in ((1, 2), (0, 0))
        )
    return Arm(model, texts), Tried(x, sigma, ("a", "b"), asked - empty)


def values(model) -> list[torch.Tensor]:
    return [each.detach().clone() for each in model.model.diffusion_model.parameters()]


@pytest.mark.parametrize("family", FAMILIES)
def test_it_climbs_and_gives_the_model_back(family):
    arm, tried = arms(family)
    before, counted = values(arm.model), []
    plain, most = searched(arm, tried, 2, counted.append)
    assert plain == pytest.approx(1.0, abs=1e-3), "the base draws its own concept whole"
    assert most > plain and STRIDE > 0
    assert counted == [8, 8, 2]
    assert all(map(torch.equal, before, values(arm.model)))
    assert EMPTY in arm.texts


@pytest.mark.parametrize("family", NO_WAY_BACK)
def test_where_the_host_s_network_has_no_gradient_it_says_so(family):
    arm, tried = arms(family)
    with pytest.raises(NoGradient):
        searched(arm, tried, 1, lambda count: None)


def test_what_is_not_finite_is_no_result():
    arm, tried = arms("SD15")
    next(arm.model.model.diffusion_model.parameters()).data.fill_(float("nan"))
    assert all(map(torch.isnan, map(torch.tensor, searched(arm, tried, 2, lambda count: None))))
