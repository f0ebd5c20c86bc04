"""The roles of layers are found by what they compute, in every family, whatever they are called."""

import comfy.ldm.modules.attention
import pytest
import torch
from layer_roles import expected
from modular_safety_lora.host import structure
from modular_safety_lora.host.denoiser import Denoiser
from modular_safety_lora.host.layers import layers_of
from modular_safety_lora.host.structure import (
    CROSS,
    EMBEDDER,
    FUSED,
    JOINT,
    MLP,
    MODULATION,
    OTHER,
    SELF,
)
from modular_safety_lora.lab import zoo
from modular_safety_lora.training.objectives import METHODS
from modular_safety_lora.training.targets import (
    check_layers,
    narrowed,
    reading,
    target_layers,
    told,
)

ATTENDING = {SELF, CROSS, JOINT, FUSED}
NOT_REACHED = {"Omnigen2": "ref_image_"}  # without a picture to go by


class ByHand:
    """A tensor as newer hosts hand it to attention: it is taken out once."""

    def __init__(self, tensor: torch.Tensor):
        self.tensor = tensor

    def take(self) -> torch.Tensor:
        tensor, self.tensor = self.tensor, None
        return tensor


Container = getattr(comfy.ldm.modules.attention, "AttentionTensorContainer", ByHand)


@pytest.fixture(scope="module", params=zoo.TWINS)
def seen(request):
    """(family, network, roles) of each small model."""
    model = zoo.build(request.param)
    roles = Denoiser(model).roles(zoo.conditionings(request.param, 1)[0])
    return request.param, model.model.diffusion_model, roles


def test_the_roles_are_those_that_the_hosts_sources_say(seen):
    family, network, roles = seen
    found = {name: role for name, role in roles.items() if role in ATTENDING | {MLP}}
    assert found == expected(family, layers_of(network)) and found
    assert roles.keys() == layers_of(network).keys()
    left = {role for name, role in roles.items() if name not in found}
    assert left <= {MODULATION, EMBEDDER, OTHER}


def test_attention_that_takes_containers_shows_the_same(seen, monkeypatch):
    family, _, roles = seen
    attend, packed = structure.Seen.attend, []

    def packing(self, attention, q, k, v, *args, **kwargs):
        packed.append(1)
        return attend(self, attention, *map(Container, (q, k, v)), *args, **kwargs)

    monkeypatch.setattr(structure.Seen, "attend", packing)
    model = zoo.build(family)
    assert Denoiser(model).roles(zoo.conditionings(family, 1)[0]) == roles and packed


def test_each_choice_trains_what_it_says(seen):
    _, network, roles = seen
    attention, read, more, everything = (
        target_layers(network, roles, choice)
        for choice in ("attention", "cross-attention", "attention+mlp", "all")
    )
    assert {roles[name] for name in attention} <= ATTENDING
    alone = CROSS in roles.values()
    assert {roles[name] for name in read} <= ({CROSS} if alone else {JOINT, FUSED})
    assert {roles[name] for name in more} <= ATTENDING | {MLP}
    assert set(read) <= set(attention) <= set(more) <= set(everything)
    linear = {name for name in attention if isinstance(layers_of(network)[name], torch.nn.Linear)}
    assert linear == {name for name, role in roles.items() if role in ATTENDING}
    if alone:
        count = len(read)
        assert told(read, roles) == f"{count} layers: {count} cross-attention"


def test_each_way_to_erase_trains_layers_that_read_the_text_or_none_of_them(seen):
    _, network, roles = seen
    words, rest = (METHODS[name].layers(network, roles) for name in ("esd-x", "esd-u"))
    assert words == METHODS["sdd"].layers(network, roles) and words and rest
    assert {roles[name] for name in words} <= set(reading(roles))
    assert not {roles[name] for name in rest} & {CROSS, JOINT, FUSED, EMBEDDER, MODULATION}


def test_the_pass_changes_nothing_in_the_host(seen):
    """Neither the network's hooks nor the host's attention are left behind."""
    _, network, _ = seen
    attention = comfy.ldm.modules.attention
    assert not any(module._forward_hooks for module in network.modules())
    assert attention.optimized_attention.__module__ == attention.__name__


def test_a_choice_of_embedders_alone_is_refused():
    model = zoo.build("ZImage")
    roles = Denoiser(model).roles(zoo.conditionings("ZImage", 1)[0])
    network = model.model.diffusion_model
    with pytest.raises(ValueError, match=r"None of the chosen layers .2, first: t_embedder.mlp.0."):
        check_layers(target_layers(network, roles, r"t_embedder\.mlp"), roles)
    for none in ([], narrowed([], ""), narrowed([], "to_k")):
        with pytest.raises(
            ValueError, match="no layer that can be trained here, among its .* joint attention"
        ):
            check_layers(none, roles)
    check_layers(target_layers(network, roles, r"mlp|layers\.0"), roles)
