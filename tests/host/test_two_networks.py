"""What is left of a safety module in one network does not make up for what is gone in the other."""

import merging
import pytest
from modular_safety_lora.lab import assets
from modular_safety_lora.merge.merge import Task, merge
from modular_safety_lora.merge.on_model import KEY
from modular_safety_lora.modules.errors import SafetyError

pytestmark = pytest.mark.usefixtures("unloaded")
LARGE = 3.0


def scaled(tensors: dict, by: float) -> dict:
    """The change times a number."""
    return {
        key: by * value if key.endswith(("lora_B.weight", "lora_up.weight")) else value
        for key, value in tensors.items()
    }


@pytest.fixture
def parts(model, shapes):
    """The tensors of a module in the diffusion model, and in the text encoder."""
    return assets.lora(shapes, 3), assets.text_lora(5)


@pytest.mark.parametrize("attacked", [0, 1], ids=["diffusion model", "text encoder"])
def test_each_network_keeps_its_safety_change(checkpoint, model, parts, attacked):
    other = scaled(parts[1 - attacked], LARGE)
    safety = merging.safety(parts[attacked] | other)
    task = Task(merging.task(scaled(parts[attacked], -0.4)))
    merged = merge(model, [safety], [task], checkpoint[1])
    report = merged.report
    assert report["retained_safety"] == pytest.approx(0.6, abs=0.01)
    assert report["modules"][0]["retained_safety"] == report["retained_safety"]
    assert report["losses"] and report["to_blame"][0] == "task.safetensors"
    assert report["modules"][1]["interference"]["retained_safety"] == pytest.approx(0.6, abs=0.01)
    patcher = merged.clip.patcher if attacked else merged.model
    with pytest.raises(SafetyError, match="retained safety of safety.safetensors is 0.6"):
        patcher.get_attachment(KEY).check(patcher)


def test_a_scaled_network_is_not_hidden_by_the_other(checkpoint, model, parts):
    """Weights two and a half times as large, beside those of the other, which are as they were."""
    safety = merging.safety(parts[0] | scaled(parts[1], LARGE))
    large = model.clone()
    state = model.model.state_dict()
    keys = [f"diffusion_model.{name}.weight" for name in merging.LINEAR]
    large.add_patches({key: (state[key],) for key in keys}, 1.5)
    report = merge(large, [safety], [], checkpoint[1], foreign="report").report
    assert any("times their loaded size" in loss for loss in report["losses"])
