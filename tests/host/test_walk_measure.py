"""The measure of the walk: a layer that computes something else shows, whatever was done to it."""

import torch
from walk_measure import SAME, Layers


def test_a_layer_that_is_changed_in_any_way_shows():
    network = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.LayerNorm(8))
    safe, linear = Layers(network), network[0]
    assert safe.distance(network) == 0.0
    linear.weight.data.mul_(1.5)
    assert safe.distance(network) > 0.05
    linear.weight.data.div_(1.5)
    linear.weight_function = [lambda weight: weight]
    assert safe.distance(network) <= SAME, "another state that computes the same"
    for way in ("hook", "forward"):
        if way == "hook":
            handle = linear.register_forward_hook(lambda module, given, out: 2 * out)
        else:
            linear.forward = lambda given: torch.zeros(1, 8)
        assert safe.distance(network) > 0.05, way
        handle.remove()
