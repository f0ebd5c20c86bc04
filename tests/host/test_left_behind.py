"""What another model left in a network that clones share is found, and nothing harmless is."""

import logging
from dataclasses import replace
from functools import partial

import comfy_extras.nodes_lora_debug as bypass
import pytest
import torch
from attack_parts import left_behind
from attack_stage import encoded
from comfy_api.torch_helpers.torch_compile import set_torch_compile_wrapper
from modular_safety_lora.merge.merge import merge
from modular_safety_lora.merge.on_model import left_on

pytestmark = pytest.mark.usefixtures("unloaded", "one_thread")


@pytest.fixture(scope="module")
def stage(stage):
    return replace(stage, kept={"texts": encoded(stage.base_clip)})


def test_a_bypass_that_was_taken_out_again_is_no_alarm(stage):
    network, safe = stage.base.model, stage.run()()
    undone = bypass.LoraLoaderBypassModelOnly().load_lora_model_only(stage.base, stage.file, -1.0)
    stage.run(*undone)()
    assert left_on(network)
    assert torch.allclose(stage.run()(), safe, rtol=1e-4, atol=1e-5)
    assert left_on(network) == [] and any("forward" in vars(each) for each in network.modules())


def test_a_network_that_is_compiled_while_it_runs_is_no_alarm(stage):
    compiled = stage.locked.clone()
    keys = ["diffusion_model.time_embed", "diffusion_model.out"]
    set_torch_compile_wrapper(compiled, backend="eager", keys=keys)
    safe = stage.run()()
    assert torch.allclose(stage.run(compiled)(), safe, rtol=1e-4, atol=1e-5)


def test_under_report_what_was_left_is_said(stage, caplog):
    lenient = merge(stage.base, [stage.safety], (), stage.base_clip, foreign="report")
    run = left_behind(replace(stage, kept=stage.kept | {"merge": lenient}))
    with caplog.at_level(logging.WARNING):
        run()
    assert "code left on the network in diffusion_model" in caplog.text


PLANTED = {
    "another function": lambda layer: setattr(layer, "forward", lambda x: x),
    "a function around its own": lambda layer: setattr(layer, "forward", partial(layer.forward)),
    "another module's code": lambda layer: setattr(layer, "forward", type(layer)(1, 1).forward),
    "a hook": lambda layer: layer.register_forward_hook(lambda *_: None),
    "a hook before it": lambda layer: layer.register_forward_pre_hook(lambda *_: None),
}


@pytest.mark.parametrize("plant", PLANTED)
def test_what_runs_other_code_than_its_class_is_named(plant):
    network = torch.nn.Sequential(torch.nn.ReLU(), torch.nn.Linear(4, 4))
    assert left_on(network) == []
    PLANTED[plant](network[1])
    assert left_on(network) == ["1"]
