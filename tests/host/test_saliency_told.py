"""What SalUn's mask is told by: inputs that are written over, several batches, the main process."""

import pytest
import torch
from modular_safety_lora.host.gradients import kept, recomputing
from modular_safety_lora.training.adapter_settings import AdapterSettings
from modular_safety_lora.training.engine import saliency
from modular_safety_lora.training.engine.adapters import adapters_in
from modular_safety_lora.training.engine.processes import Share
from modular_safety_lora.training.settings import Settings

pytestmark = pytest.mark.usefixtures("one_thread")
SHARE = 0.25  # half of the rows, half of the columns


class WritesOver(torch.nn.Module):
    """A block that writes over what its first layer has read."""

    def __init__(self):
        super().__init__()
        self.first, self.second = torch.nn.Linear(6, 8), torch.nn.Linear(8, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x += self.second(self.first(x).relu())
        return x


@pytest.mark.parametrize("recomputed", [False, True])
def test_what_went_into_a_layer_may_be_written_over(recomputed):
    network, given = torch.nn.Sequential(WritesOver(), WritesOver()), torch.randn(5, 6)
    layers = [f"{block}.{layer}" for block in (0, 1) for layer in ("first", "second")]
    weights = [network.get_submodule(each).weight for each in layers]
    moved = given
    for block in network:
        moved = moved + block.second(block.first(moved).relu())
    expected = torch.autograd.grad(moved.square().mean(), weights)
    way = recomputing(network) if recomputed else kept(True)
    with adapters_in(network, layers, AdapterSettings(2, 2.0)) as adapters, way:
        found = saliency.saliency(adapters, [lambda: network(given.clone()).square().mean()])
    for layer, slope in zip(layers, expected, strict=True):
        for sums, dim in zip(found[layer], (1, 0), strict=True):
            assert torch.allclose(sums.float(), slope.square().sum(dim=dim), rtol=1e-3), layer


def test_what_the_loss_does_not_see_may_not_change():
    network, given = torch.nn.Sequential(WritesOver(), WritesOver()), torch.randn(5, 6)
    layers = ["0.second", "1.second"]
    with kept(True), adapters_in(network, layers, AdapterSettings(2, 2.0)) as adapters:
        seen = [lambda: network(given.clone())[:, 0].square().mean()]
        masks = saliency.narrow(adapters, seen, SHARE)
    assert int(masks["saliency.0.second.lora_B.msl.weight"].sum()) == 3
    assert masks["saliency.1.second.lora_B.msl.weight"].flatten().tolist() == [1, 0, 0, 0, 0, 0]


def test_every_process_takes_the_main_ones_choice():
    network, given = torch.nn.Sequential(WritesOver(), WritesOver()), torch.randn(5, 6)
    seen = [
        [lambda at=at: network(given.clone())[:, at].square().mean()] for at in range(2)
    ]  # by the main process, and by the second
    with kept(True), adapters_in(network, ["1.second"], AdapterSettings(2, 2.0)) as adapters:
        found = saliency.saliency(adapters, seen[0])

        class Second(Share):
            def gather(self, here):
                return [found, here]

        masks = saliency.narrow(adapters, seen[1], SHARE, Second(1, 2))
    assert masks["saliency.1.second.lora_B.msl.weight"].flatten().tolist() == [1, 0, 0, 0, 0, 0]


def test_it_is_told_by_several_batches_each_with_noise_of_its_own():
    asked = []

    def loss_of(given) -> dict[str, torch.Tensor]:
        asked.append((given.step, given.normal((2,)).tolist()))
        return {"erase": torch.tensor(1.0), "retain": torch.tensor(2.0)}

    losses = saliency.losses_of(loss_of, [range(4)], Settings())
    once, again = ([float(each()) for each in losses] for _ in range(2))
    assert once == again == [3.0] * saliency.PASSES
    half = len(asked) // 2
    assert asked[:half] == asked[half:] and half > 1  # asked again, as where it is scaled less
    assert len({str(noise) for _, noise in asked}) == half
