"""Gradients through networks that write over what they need are those of networks that do not."""

import pytest
import torch
from comfy_extras.nodes_train import find_modules_at_depth, patch, unpatch
from modular_safety_lora.host.denoiser import Denoiser
from modular_safety_lora.host.gradients import (
    NoGradient,
    go_back,
    kept,
    recomputing,
    writes_over,
)
from modular_safety_lora.host.lending import lent
from modular_safety_lora.lab import zoo
from modular_safety_lora.training.adapter_settings import AdapterSettings
from modular_safety_lora.training.engine.adapters import adapters_in
from modular_safety_lora.training.targets import target_layers
from torch.overrides import TorchFunctionMode

IN_PLACE = [key for key, twin in zoo.TWINS.items() if twin.writes_over]
NO_WAY_BACK = [key for key, twin in zoo.TWINS.items() if not twin.trains]
DEPTH = 1  # the stock trainer's default
ORDINARY = ("SD15", "SD35", "ZImage", "QwenImage", "WAN21_T2V")


OUT_OF_PLACE = {"add_": torch.add, "sub_": torch.sub, "mul_": torch.mul}
OUT_OF_PLACE |= {"__iadd__": torch.add, "__isub__": torch.sub, "__imul__": torch.mul}


class OutOfPlace(TorchFunctionMode):
    """`a += b` and its kin as `a = a + b`: the networks as if they wrote over nothing."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        func = OUT_OF_PLACE.get(getattr(func, "__name__", ""), func)
        return func(*args, **(kwargs or {}))


class Trained:
    """A small model lent for training, with seeded adapters on all its attention."""

    def __init__(self, family: str, own, stack):
        self.family, self.denoiser = family, Denoiser(own)
        self.network = self.denoiser.base.diffusion_model
        self.example = zoo.conditionings(family, 1)[0]
        layers = target_layers(self.network, self.denoiser.roles(self.example))
        self.adapters = stack.enter_context(
            adapters_in(self.network, layers, AdapterSettings(2, 2.0))
        )
        generator = torch.Generator().manual_seed(1)
        for value in self.adapters.parameters.values():
            value.data = 0.05 * torch.randn(value.shape, generator=generator)
        self.clean = self.denoiser.latents_in(zoo.latents(family, 1)[0])
        self.sigma = self.denoiser.sampling.sigmas[-1:].float() * 0.7

    def loss(self) -> torch.Tensor:
        conditions = self.denoiser.conditions([self.example], self.clean)
        return self.denoiser.output(self.clean, self.sigma, conditions).square().mean()

    def gradient(self) -> torch.Tensor:
        parameters = list(self.adapters.parameters.values())
        found = torch.autograd.grad(self.loss(), parameters, allow_unused=True)
        return torch.cat(
            [
                (torch.zeros_like(value) if each is None else each).flatten()
                for value, each in zip(parameters, found, strict=True)
            ]
        )

    def slope(self, direction: torch.Tensor, step: float = 1e-2) -> float:
        """The change of the loss along a direction, by central differences."""
        values = list(self.adapters.parameters.values())
        sizes = [value.numel() for value in values]

        def moved(by: float) -> None:
            for value, part in zip(values, direction.split(sizes), strict=True):
                value.data += by * part.view_as(value)

        found = []
        for by in (step, -2 * step):
            moved(by)
            with torch.no_grad():
                found.append(self.loss().double().item())
        moved(step)
        return (found[0] - found[1]) / (2 * step)


@pytest.fixture
def trained(request):
    import contextlib

    with contextlib.ExitStack() as stack:
        own = stack.enter_context(lent(zoo.build(request.param)))
        yield Trained(request.param, own, stack)


def difference(one: torch.Tensor, other: torch.Tensor) -> float:
    return ((one - other).norm() / other.norm()).item()


@pytest.mark.parametrize("trained", [*IN_PLACE, *ORDINARY], indirect=True)
def test_gradients_are_those_of_a_network_that_writes_over_nothing(trained):
    parameters = list(trained.adapters.parameters.values())
    copied = writes_over(trained.loss, parameters)
    assert copied == (trained.family in IN_PLACE)
    with kept(copied):
        plain = trained.gradient()
    with recomputing(trained.network):
        again = trained.gradient()
    assert not any("forward" in vars(each) for each in trained.network.modules())
    direction = plain / plain.norm()
    assert trained.slope(direction) == pytest.approx(plain.norm().item(), rel=5e-3)
    assert difference(again, plain) < 1e-5
    if trained.family != "LTXV":  # which also writes by methods, with nothing to bind again
        with OutOfPlace():
            assert difference(plain, trained.gradient()) < 1e-5


@pytest.mark.parametrize("trained", IN_PLACE, indirect=True)
def test_the_stock_trainers_checkpointing_gives_other_gradients_there(trained):
    """The day it does not, this test says so, and copies may go."""
    with kept(True):
        right = trained.gradient()
    blocks = find_modules_at_depth(trained.network, depth=DEPTH)
    try:
        for block in blocks:
            patch(block)
        stock = trained.gradient()
    finally:
        for block in reversed(blocks):
            unpatch(block)
    print(f"{trained.family}: the stock trainer's gradient is {difference(stock, right):.2%} off")
    assert difference(stock, right) > 1e-3


@pytest.mark.parametrize("trained", NO_WAY_BACK, indirect=True)
def test_a_network_without_gradients_says_so(trained):
    with pytest.raises(NoGradient, match="no autograd formula was registered"):
        writes_over(trained.loss, list(trained.adapters.parameters.values()))
    with (
        recomputing(trained.network),
        pytest.raises(NoGradient, match="no autograd formula was registered"),
    ):
        go_back(trained.loss, list(trained.adapters.parameters.values()))
