"""What a merge says and does of the number in function: report, limits, what is not measured."""

import json

import formats
import merging
import pytest
import torch
from concepts import PROMPTS, picture, prompted
from modular_safety_lora.function.limits import Limits
from modular_safety_lora.lab import zoo
from modular_safety_lora.merge import merge
from modular_safety_lora.modules.errors import SafetyError
from modular_safety_lora.nodes.merge import ModularMerge
from modular_safety_lora.nodes.nudity_audit import NudityAudit

pytestmark = pytest.mark.usefixtures("unloaded", "one_thread")


def undoing(module, part: float):
    """A task that takes a part of the whole safety change away."""
    return merge.Task(merging.task(dict(module.tensors), "undoing.safetensors"), -part)


def audited() -> list[str]:
    shown = NudityAudit.execute(
        torch.zeros(1, 64, 64, 3), preset="strict", threshold=0.0, action="none"
    ).args[2]
    return json.loads(shown)["lock_findings"]


def test_the_report_has_the_number_of_each_safety_module_and_the_least(checkpoint, prompted_module):
    (model, clip), (module, _) = checkpoint, prompted_module
    other = prompted(
        formats.Lora(merging.shapes(model, merging.LINEAR[0]), 3).tensors(), ["a gun"], "other"
    )
    report = merge.merge(model, [module, other], (), clip).report
    one, two = report["modules"]
    assert one["retained_in_function"] == pytest.approx(1.0, abs=0.2)
    assert two["least_prompt"]["prompt"] == "a gun"
    least = min(one["retained_in_function"], two["retained_in_function"])
    assert report["retained_in_function"] == least and report["looks"] == []
    alone = merge.merge(model, [module], (), clip).report
    assert alone["retained_in_function"] == pytest.approx(1.0, abs=1e-5)
    assert alone["modules"][0]["rise"] == pytest.approx(0.0, abs=1e-5)
    assert "measured in the network's output on 2 prompts" in alone["in_function"]


def test_the_base_stops_and_one_that_is_half_back_is_looked_at(checkpoint, prompted_module):
    (model, clip), (module, _) = checkpoint, prompted_module
    gone = merge.merge(model, [module], [undoing(module, 1.0)], clip)
    assert gone.report["retained_in_function"] == pytest.approx(0.0, abs=1e-3)
    assert gone.report["modules"][0]["back"] == pytest.approx(1.0, abs=1e-3)
    assert any("in function is" in each for each in gone.report["losses"])
    assert gone.report["to_blame"] == ["undoing.safetensors"]
    with pytest.raises(SafetyError, match="is not whole on the model that samples"):
        picture(gone.model, gone.clip)
    half = merge.merge(model, [module], [undoing(module, 0.4)], clip).report
    assert 0.5 < half["retained_in_function"] < 0.85 and half["modules"][0]["back"] > 0.2
    assert "look at these pictures" in half["looks"][0]
    assert not any("in function" in each for each in half["losses"])


def test_a_look_stands_in_the_audits_of_its_pictures_and_stops_nothing(checkpoint, prompted_module):
    """Limits of an operator who is stricter: a part that every other threshold lets pass."""
    (model, clip), (module, _) = checkpoint, prompted_module
    strict = Limits(0.0, 1.0)
    part = [undoing(module, 0.08)]
    assert merge.merge(model, [module], part, clip).report["looks"] == []
    merged = merge.merge(model, [module], [undoing(module, 0.08)], clip, limits=strict)
    assert merged.report["looks"] == []  # less than a fifth of the base is back
    half = merge.merge(
        model, [module], [undoing(module, 0.4)], clip, foreign="report", limits=strict
    )
    picture(half.model, half.clip)
    assert any("look at these pictures" in each for each in audited())
    picture(merged.model, merged.clip)
    assert audited() == []


def test_a_single_layer_stops_where_the_network_was_not_asked_and_not_where_it_holds(
    checkpoint, text_layers
):
    """Harmless modules take half of a safety change in some layer; what is computed is the same."""
    model, clip = checkpoint
    layer = merging.LINEAR[0]
    lora = formats.Lora({**text_layers, **merging.shapes(model, layer)}, 1)
    module = prompted(lora.tensors(), PROMPTS)
    away = -0.6 * lora.delta(layer, merging.base(model, layer)).float()
    task = merge.Task(merging.task({f"diffusion_model.{layer}.diff": away}))
    asked = merge.merge(model, [module], [task], clip)
    assert asked.report["worst_layer"]["retained_safety"] == pytest.approx(0.4, abs=1e-3)
    assert asked.report["retained_safety"] > 0.9
    assert asked.report["losses"] == [] and asked.report["retained_in_function"] > 0.85
    assert picture(asked.model, asked.clip).isfinite().all()
    unasked = merge.merge(model, [module], [task])
    assert "under 0.5, in diffusion_model" in unasked.report["losses"][0]
    with pytest.raises(SafetyError, match="under 0.5, in diffusion_model"):
        picture(unasked.model, clip)


def test_the_node_takes_the_operators_limits(checkpoint, prompted_module, write_settings):
    (model, clip), (module, _) = checkpoint, prompted_module
    task = undoing(module, 0.4)
    write_settings({"retained_in_function": {"stop": 0.7, "look": 0.9}})
    report = json.loads(ModularMerge.execute(model, [module], clip, [task]).args[2])
    assert any(each.endswith("under 0.7") for each in report["losses"])
    write_settings({})
    report = json.loads(ModularMerge.execute(model, [module], clip, [task]).args[2])
    assert not any("in function" in each for each in report["losses"]) and report["looks"]


def test_where_there_is_no_number_the_report_says_why(checkpoint, prompted_module):
    (model, clip), (module, _) = checkpoint, prompted_module

    def report(*safety, model=model, clip=clip):
        found = merge.merge(model, list(safety), (), clip).report
        assert found["retained_in_function"] is None
        assert found["modules"][0]["in_function"] in found["in_function"]
        return found

    assert "no clip is connected" in report(module, clip=None)["in_function"]
    assert "names no prompts" in report(merging.safety(module.tensors))["in_function"]
    small = zoo.build("SD15")  # of another width than the text encoder's output
    name = next(key for key in small.model.state_dict() if key.endswith("attn2.to_k.weight"))
    layer = name.removeprefix("diffusion_model.").removesuffix(".weight")
    shapes = merging.shapes(small, layer)
    found = report(prompted(formats.Lora(shapes, 1).tensors(), PROMPTS), model=small)
    assert "the model does not run here" in found["in_function"]
    assert "was not measured" in found["looks"][0]
    bare = report(merging.safety(formats.Lora(shapes, 1).tensors()), model=small)
    assert "names no prompts" in bare["in_function"]
    assert "the network was not measured" in bare["looks"][0], "there is no canary on it"
