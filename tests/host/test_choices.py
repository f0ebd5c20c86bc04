"""A merge's choices are checked where they act: an unknown word is never a lenient one."""

import dataclasses

import formats
import merging
import pytest
from modular_safety_lora.host.lending import computing_in
from modular_safety_lora.merge import merge, on_model
from modular_safety_lora.modules.errors import SafetyError
from modular_safety_lora.options.choices import ChoiceError

UNKNOWN = ("Refuse", "REPORT", " refuse", "", None, 1)


@pytest.fixture(scope="module")
def parts(checkpoint, shapes):
    """The model, a safety module, and a task that takes it back."""
    tensors = formats.Lora(shapes, 1).tensors()
    against = merge.Task(merging.task(tensors, "against.safetensors"), -1.0)
    return checkpoint[0], merging.safety(tensors), against


@pytest.mark.parametrize("word", UNKNOWN)
@pytest.mark.parametrize("name", ["foreign", "on_conflict"])
def test_a_word_that_a_choice_does_not_have_stops_the_merge(parts, name, word):
    model, safety, against = parts
    shown = {"foreign": "foreign_changes"}.get(name, name)
    with pytest.raises(ChoiceError, match=f"{shown} is {word!r}; it must be one of re"):
        merge.merge(model, [safety], [against], **{name: word})


def test_a_lock_of_another_word_refuses(parts):
    model, safety, against = parts
    lock = merge.merge(model, [safety], [against]).model.get_attachment(on_model.KEY)
    for word in UNKNOWN:
        with pytest.raises(SafetyError, match="is not whole"):
            dataclasses.replace(lock, policy=word).judge(["a finding"], "")


@pytest.mark.parametrize("mode", ["Anchored", "sequential", ""])
def test_a_task_that_was_trained_in_an_unknown_way_is_refused(parts, mode):
    model, safety, against = parts
    odd = dataclasses.replace(against.module, metadata={"msl.safety_mode": mode})
    with pytest.raises(ChoiceError, match=f"against.safetensors: msl.safety_mode is {mode!r}"):
        merge.merge(model, [safety], [merge.Task(odd)])


def test_a_module_in_the_others_place_is_refused(parts):
    model, safety, against = parts
    with pytest.raises(ChoiceError, match="against.* role of a safety module is 'task'"):
        merge.merge(model, [safety, against.module])
    with pytest.raises(ChoiceError, match="safety.* role of a task module is 'safety'"):
        merge.merge(model, [safety], [merge.Task(dataclasses.replace(safety, sha256="x"))])


def test_a_precision_that_there_is_not_is_an_error(parts):
    with pytest.raises(ValueError, match="precision is 'fp8'; it must be one of auto, bf16"):
        computing_in(parts[0], "fp8")
