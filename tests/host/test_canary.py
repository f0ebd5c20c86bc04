"""Whatever changes what a locked network computes, and stands in no list on it, stops sampling."""

from contextlib import ExitStack

import comfy.model_management
import overwriting
import pytest
import tampering
import torch
import zoo_arms
from canaries import Held, near, safety_of
from comfy.utils import get_attr
from modular_safety_lora.merge.findings import findings
from modular_safety_lora.merge.lock import strict
from modular_safety_lora.merge.merge import merge
from modular_safety_lora.merge.on_model import KEY
from modular_safety_lora.modules.errors import SafetyError

pytestmark = pytest.mark.usefixtures("one_thread")
SAID = r"is not whole on the model that samples\. (.|\n)*first: (.|\n)*"


@pytest.fixture(scope="module")
def held(models, parts):
    """The small checkpoint and a safety module that changes its text encoder too."""
    model, clip, _ = parts
    return Held(merge(model, [safety_of(models)], (), clip))


@pytest.mark.parametrize("name", tampering.CHANGES)
def test_a_change_that_no_list_shows_is_found_by_name_and_stops_sampling(held, name):
    change, words = tampering.CHANGES[name]
    assert near(held.picture(), held.safe)
    with ExitStack() as undo:
        change(held.model, undo)
        found = held.canary.faults(held.model)
        assert found and found[0].startswith(words)
        assert len(found) <= 4
        with pytest.raises(SafetyError, match=SAID):
            held.picture()
    assert held.canary.faults(held.model) == []
    assert near(held.picture(), held.safe)


@pytest.mark.parametrize("name", ["a module, wrapped", "a weight function", "the order of blocks"])
def test_it_does_where_weights_stream(held, name):
    with zoo_arms.memory(0.0):
        assert near(held.picture(), held.safe)
        with ExitStack() as undo:
            tampering.CHANGES[name][0](held.model, undo)
            with pytest.raises(SafetyError):
                held.picture()
        assert near(held.picture(), held.safe)


def test_a_change_that_computes_the_same_is_none(held):
    held.picture()
    with ExitStack() as undo:
        layer = tampering.part(held.model)
        tampering.put(undo, layer, "eps", 1.0)  # a linear layer has none
        blocks = held.model.model.diffusion_model
        tampering.put(undo, blocks, "dtype_of_mine", torch.float16)
        weight = tampering.part(held.model, "out.2").weight
        overwriting.write(undo, weight, weight.clone())
        assert held.canary.faults(held.model) == []
        assert near(held.picture(), held.safe)


def test_under_the_policy_report_it_is_noted_unless_somebody_is_strict(models, parts):
    model, clip, _ = parts
    merged = merge(model, [safety_of(models)], (), clip, "report")
    held = Held(merged)
    with ExitStack() as undo, findings.gathered() as found:
        tampering.CHANGES["a bias"][0](held.model, undo)
        held.picture()
    assert len(found) == 1 and "weights written over" in found[0]
    with ExitStack() as undo:
        strict.add("a test")
        undo.callback(strict.discard, "a test")
        tampering.CHANGES["a bias"][0](held.model, undo)
        with pytest.raises(SafetyError, match=SAID):
            held.picture()


def test_without_a_clip_there_is_no_canary_and_the_report_says_so(models, parts):
    merged = merge(parts[0], [safety_of(models, text=False)])
    assert merged.model.get_attachment(KEY).canary is None
    assert "no clip is connected" in merged.report["in_function"]


def test_without_prompts_it_is_asked_about_noise(models, parts):
    module = safety_of(models)
    metadata = {key: value for key, value in module.metadata.items() if key != "msl.prompts"}
    plain = type(module)(module.name, module.role, "no prompts", metadata, module.tensors)
    held = Held(merge(parts[0], [plain], (), parts[1]))
    assert held.canary.unsafe is None and held.canary.y.isfinite().all()
    with ExitStack() as undo:
        bias = tampering.part(held.model, "out.2").bias
        overwriting.write(undo, bias, torch.full_like(bias, torch.nan))
        assert "NaN" in held.canary.faults(held.model)[0]
    with ExitStack() as undo:
        tampering.CHANGES["a bias"][0](held.model, undo)
        with pytest.raises(SafetyError, match=SAID):
            held.picture()


def test_it_takes_one_forward_at_a_sampling(held):
    calls = []
    with ExitStack() as undo:
        hook = held.model.model.diffusion_model.register_forward_pre_hook
        undo.callback(hook(lambda *_: calls.append(1)).remove)
        comfy.model_management.load_models_gpu([held.model])
        held.canary.faults(held.model)
    assert len(calls) == 1


def test_a_small_effect_that_is_taken_back_is_found_though_little_changes(models, parts):
    module = safety_of(models, text=False)
    small = {
        name: 0.015 * value if "up" in name or "lora_B" in name else value
        for name, value in module.tensors.items()
    }
    module = type(module)(module.name, module.role, "a small one", module.metadata, small)
    held = Held(merge(parts[0], [module], (), parts[1]))
    assert held.canary.effect < held.canary.tolerance
    comfy.model_management.load_models_gpu([held.model])
    with ExitStack() as undo:
        for key, before in held.model.backup.items():
            weight = get_attr(held.model.model, key)
            overwriting.write(undo, weight, before.weight.to(weight))
        found = held.canary.faults(held.model)
        assert found and "100 % of the safety LoRA's effect is gone" in found[0]
    assert held.canary.faults(held.model) == []
