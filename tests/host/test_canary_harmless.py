"""What means no harm raises no alarm: the canary gives what it gave, and sampling goes on."""

from functools import partial

import comfy.model_management
import concepts
import harmless_runs
import pytest
import torch
import zoo_arms
from canaries import Held, near, safety_of
from comfy_api.torch_helpers.torch_compile import set_torch_compile_wrapper
from model_table import FORMATS
from modular_safety_lora.function import canary
from modular_safety_lora.lab import zoo
from modular_safety_lora.merge.merge import merge
from modular_safety_lora.merge.on_model import KEY

pytestmark = pytest.mark.usefixtures("one_thread")
FAMILIES = ("SD15", "Flux")
HELD = FORMATS | {
    "fp16 computes": partial(zoo.build, held=torch.float16, cast=None),
    "bf16 computes": partial(zoo.build, held=torch.bfloat16, cast=None),
}
LOADED = {"in memory": 1e3, "in part": 0.5, "streaming": 0.0}


@pytest.fixture(scope="module")
def held(models, parts):
    module = safety_of(models)
    made = Held(merge(parts[0], [module], (), parts[1]))
    made.base, made.tensors = parts[0], module.tensors
    return made


@pytest.mark.parametrize("name", harmless_runs.SEQUENCES)
def test_it_samples_as_ever(held, name):
    harmless_runs.SEQUENCES[name](held)
    assert near(held.picture(), held.safe)
    assert held.canary.faults(held.model) == []


def off(held: canary.Canary, model) -> tuple[float, float]:
    """How far the output is from what it was, and how much of the safety module's effect is gone"""
    comfy.model_management.load_models_gpu([model])
    now = held.forward(model, model.model.apply_model)
    lost = canary._lost(now, held.y, held.unsafe)
    return ((now - held.y).norm() / held.y.norm()).item(), lost


def cases() -> list:
    return [
        pytest.param(family, name, marks=[] if family == "Flux" else pytest.mark.long)
        for family in FAMILIES
        for name in HELD
    ]


@pytest.mark.parametrize(
    "size", [0.1, pytest.param(0.02, marks=pytest.mark.long)], ids=["plain", "weak"]
)
@pytest.mark.parametrize(("family", "name"), cases())
def test_however_it_is_held_and_loaded_there_is_room_to_the_limits(checkpoint, family, name, size):
    """Merged in memory, in part or streaming, and sampled so: by a factor of two at least.

    The safety module is of a tenth of the weights, and of a fiftieth.
    """
    plain = zoo.build(family, sizes=zoo.AS_CHECKPOINT[family])
    module = concepts.prompted(zoo_arms.safety_lora(plain, family, size), concepts.PROMPTS)
    for at_merge in LOADED.values():
        with zoo_arms.memory(at_merge):
            model = HELD[name](family, sizes=zoo.AS_CHECKPOINT[family])
            merged = merge(model, [module], (), checkpoint[1]).model
        held = merged.get_attachment(KEY).canary
        for at_sampling in LOADED.values():
            with zoo_arms.memory(at_sampling):
                deviation, lost = off(held, merged)
                assert deviation <= held.tolerance / 2
                rounded = lost * held.effect <= canary.ROUNDING * held.tolerance / 2
                assert lost <= canary.LOST / 2 or rounded
                assert held.faults(merged) == []


@pytest.mark.long
def test_a_compiled_network_is_not_compiled_again(held):
    compiled, graphs = held.model.clone(), []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    torch._dynamo.reset()
    set_torch_compile_wrapper(compiled, backend=backend)
    assert near(held.picture(compiled), held.safe)
    once = len(graphs)
    assert once
    for _ in range(2):
        held.picture(compiled)
        assert held.canary.faults(compiled) == []
    assert len(graphs) == once
    assert near(held.picture(), held.safe)
    torch._dynamo.reset()
