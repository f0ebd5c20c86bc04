"""Every way to erase, on the models that people have, held as they hold them.

A few steps make a sealed file that loads. Modular Merge takes it beside a task LoRA, the lock
passes it and refuses one that is taken away, and the network's output moves as its figures say.
"""

import math

import comfy.sd
import merging
import model_table
import pytest
import small_clips
import zoo_arms
from modular_safety_lora.host.prompts import encode_texts
from modular_safety_lora.lab import zoo
from modular_safety_lora.merge.merge import Task, merge
from modular_safety_lora.modules.errors import SafetyError
from modular_safety_lora.modules.files import load_safety
from modular_safety_lora.training import safety
from modular_safety_lora.training.adapter_settings import AdapterSettings
from modular_safety_lora.training.engine.job import TrainingJob
from modular_safety_lora.training.objectives import METHODS, Erasure
from modular_safety_lora.training.objectives.adversary import hardest
from modular_safety_lora.training.safety import train_safety
from modular_safety_lora.training.settings import Settings
from training_runs import lands

pytestmark = pytest.mark.usefixtures("one_thread", "unloaded", "no_chart")
TEXT = "c_crossattn"  # as the host calls what a network reads of a prompt
CONCEPT, INSTEAD = "nude", "a red car in the rain"
PLACES = [(family, name) for name in model_table.HELD for family in model_table.SHAPES]
SMALLER = {
    "SD15": {
        "channel_mult": [1],
        "num_res_blocks": [1],
        "transformer_depth": [1],
        "transformer_depth_output": [1, 1],
    },
    "SDXL": {
        "model_channels": 32,
        "transformer_depth": [0, 1],
        "transformer_depth_output": [0, 0, 1, 1],
        "transformer_depth_middle": 1,
    },
    "ZImage": {"n_layers": 1},
}
NAMES, OFTEN_HELD = [*METHODS], 2 * len(model_table.SHAPES)
OFTEN = {  # each method, and each model held in bf16 and in fp8, at least once
    (NAMES[turn % len(NAMES)], *PLACES[turn % OFTEN_HELD])
    for turn in range(max(len(NAMES), OFTEN_HELD))
}


@pytest.fixture(scope="module")
def clip():
    """A text encoder of the width that the zoo's models read."""
    return small_clips.clip(*small_clips.SHAPES["SD15"][:3])


@pytest.fixture(scope="module")
def texts(clip):
    return encode_texts(clip, [CONCEPT, INSTEAD])


@pytest.fixture(scope="module")
def stage():
    """(MODEL, a task LoRA for it, what it draws) by family and how it is held."""
    made = {}

    def stage(family: str, name: str):
        if (family, name) not in made:
            model = model_table.FORMATS[name](family, sizes=SMALLER.get(family))
            task = merging.task(zoo_arms.safety_lora(model, family, 0.02))
            made[family, name] = model, Task(task), zoo.sampled(model, family)
        return made[family, name]

    return stage


def trained(model, texts, method: str, file, side: int, **more_told):
    """Two steps, or a closed form's rounds."""
    settings = Settings(steps=2, adapter=AdapterSettings(2, 2.0), learning_rate=0.01)
    erasure = Erasure(method, sampling_steps=2, ema=0.5, **more_told)
    more = {"surrogates": [INSTEAD], "resolution": side}
    job = TrainingJob(file)
    return train_safety(model, texts, [CONCEPT], settings, job, erasure=erasure, **more)


@pytest.mark.parametrize(
    ("method", "family", "name"),
    [
        pytest.param(*case, marks=[] if case in OFTEN else pytest.mark.long)
        for case in ((method, *place) for method in METHODS for place in PLACES)
    ],
)
def test_it_is_sealed_merges_is_locked_and_acts(method, family, name, stage, clip, texts, tmp_path):
    (model, task, before), file = stage(family, name), tmp_path / "safety.safetensors"
    made = trained(model, texts, method, file, zoo.TWINS[family].side).module
    module = load_safety(file, file.name)
    assert module.sha256 == made.sha256 and module.metadata["msl.method"] == method
    assert all(each.isfinite().all() for each in module.tensors.values()) and lands(model, module)
    report = merge(model, [module], (), clip).report
    [about] = report["modules"]
    assert report["losses"] == [] and report["retained_in_function"] == pytest.approx(1.0, abs=1e-3)
    figures = [about[each] for each in ("rise", "back", "against")]
    assert all(math.isfinite(each) for each in figures) and figures[0] == pytest.approx(
        0.0, abs=1e-3
    )
    beside = merge(model, [module], [task])
    assert beside.report["retained_safety"] > 0.9 and beside.report["losses"] == []
    assert not zoo.sampled(beside.model, family).equal(before)
    taken = dict(module.tensors)
    fused = merge(model, [module], [task, Task(merging.task(taken, "away.safetensors"), -1.0)])
    later = comfy.sd.load_lora_for_models(beside.model, None, taken, -1.0, 0.0)[0]
    for unsafe in (fused.model, later):
        with pytest.raises(SafetyError, match="is not whole on the model that samples"):
            zoo.sampled(unsafe, family)


@pytest.mark.parametrize(
    ("family", "name"),
    [
        pytest.param(*case, marks=[] if case == ("Flux", "bf16") else pytest.mark.long)
        for case in PLACES
    ],
)
def test_a_search_reaches_the_prompt_of_every_shape(
    family, name, stage, texts, tmp_path, monkeypatch
):
    model, seen = stage(family, name)[0], []

    def watched(denoiser, adapters, moment, *more):
        conditions = hardest(denoiser, adapters, moment, *more)
        (_, before), (_, found) = moment.concept[0], conditions[0]
        seen.append(not before[TEXT].equal(found[TEXT]))
        return conditions

    monkeypatch.setattr(safety, "hardest", watched)
    side = zoo.TWINS[family].side
    trained(model, texts, "surrogate", tmp_path / "x.safetensors", side, adversarial_steps=1)
    assert seen == [False, True], "at first the student is the base: there is nothing to find"


@pytest.mark.parametrize("family", model_table.PAST_LINEAR)
def test_a_formula_is_refused_by_name_where_text_enters_past_linear_layers(family, tmp_path):
    model, drawn = zoo.build(family), zoo.conditionings(family, 3)
    texts = dict(zip((CONCEPT, INSTEAD, ""), drawn, strict=True))
    named = rf"in {type(model.model).__name__} models it enters past them too \("
    for method in model_table.RULES:
        told = rf"The method {method} edits .*{named}.*such as esd-x, or seal a LoRA"
        with pytest.raises(ValueError, match=told):
            trained(model, texts, method, tmp_path / "x.safetensors", zoo.TWINS[family].side)
