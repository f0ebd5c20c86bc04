"""Probe Safety as a node: what it gives, stop, Cancel, and the soft prompt's search."""

import json

import comfy.model_management
import pytest
import torch
from modular_safety_lora.function.adaptive import Search
from modular_safety_lora.host.gradients import NoGradient
from modular_safety_lora.host.soft_prompts import SoftPrompts
from modular_safety_lora.merge.probe import probe
from modular_safety_lora.merge.probed import Asked
from modular_safety_lora.nodes.probe import ProbeSafety, ProbeStopped
from modular_safety_lora.options.choices import ChoiceError
from probe_modules import HELD_OUT, SECRET, kept_in, merged, safety_of, undoing

pytestmark = pytest.mark.usefixtures("unloaded", "write_settings", "one_level")


@pytest.fixture(scope="module", autouse=True)
def one_place(tmp_path_factory):
    with kept_in(tmp_path_factory.mktemp("kept")):
        yield


@pytest.fixture(scope="module")
def module(models):
    return safety_of(models, *HELD_OUT)


@pytest.fixture(scope="module")
def safe(checkpoint, module):
    return merged(checkpoint, module)


@pytest.fixture(scope="module")
def undone(checkpoint, module):
    return merged(checkpoint, module, undoing(module))


def test_a_whole_module_passes_and_the_model_goes_on_as_it_came(safe):
    given = ProbeSafety.execute(safe, action="stop", prompts="a body\n\n")
    model, passed, summary, report, chart = given.args
    assert model is safe and passed is True and summary.startswith("**Passed**")
    found = json.loads(report)
    assert found["passed"] and found["safety"][0]["groups"]["given"]["asked"] == 1
    assert chart.ndim == 4 and chart.shape[0] == 1 and 0.0 <= chart.min() < chart.max() <= 1.0
    assert set(given.ui) == {"images", "text", "animated"} - ({"animated"} - set(given.ui))


def test_stop_ends_the_run_and_report_lets_it_go_on(undone):
    passed, summary = ProbeSafety.execute(undone, action="report").args[1:3]
    assert passed is False and summary.startswith("**Must be audited**")
    with pytest.raises(ProbeStopped, match="^Probe Safety stopped this prompt: .* first: "):
        ProbeSafety.execute(undone, action="stop")
    with pytest.raises(ChoiceError):
        ProbeSafety.execute(undone, action="pass")


def test_private_prompts_of_the_operator_are_asked_and_told_nobody(
    undone, write_settings, tmp_path
):
    (tmp_path / "user" / "private.txt").write_text("\n".join(SECRET), encoding="utf-8")
    before = ProbeSafety.fingerprint_inputs()
    write_settings({"private_prompts": "private.txt", "private_seed": 5})
    assert ProbeSafety.fingerprint_inputs() != before
    given = ProbeSafety.execute(undone, action="report")
    found = json.loads(given.args[3])["safety"][0]
    assert found["groups"]["private"]["asked"] == 2 and "private 2" in found["prompts"]
    told = repr(given.args[2:4]) + repr(given.ui) + ProbeSafety.fingerprint_inputs()
    assert not any(text in told for text in SECRET)
    with pytest.raises(ProbeStopped) as error:
        ProbeSafety.execute(undone, action="stop")
    assert not any(text in str(error.value) for text in SECRET)


def test_cancel_ends_it_and_the_next_run_is_whole(safe):
    comfy.model_management.interrupt_current_processing(True)
    try:
        with pytest.raises(comfy.model_management.InterruptProcessingException):
            ProbeSafety.execute(safe, action="report", seed=77)
    finally:
        comfy.model_management.interrupt_current_processing(False)
    assert ProbeSafety.execute(safe, action="report", seed=77).args[1] is True


def test_a_soft_prompt_finds_as_much_on_the_safe_model_as_it_does_alone(safe):
    """This module is made of noise; what it finds elsewhere is in test_probe_world.py."""
    asked = Asked(adaptive_steps=2)
    before = {key: value.clone() for key, value in list(safe.model.state_dict().items())[:20]}
    same = probe(safe, asked)
    (row,) = same.found
    assert row.search.retained == pytest.approx(1.0, abs=1e-3)
    assert row.search.safe > row.search.plain, "the search finds more than the prompt did"
    after = safe.model.state_dict()
    assert all(torch.equal(after[key], value) for key, value in before.items())
    counted = []
    again = probe(safe, asked, step=lambda count, _: counted.append(count))
    assert not counted and again.found[0].search == row.search


def test_where_there_is_no_gradient_it_is_said_and_is_no_pass(safe, monkeypatch):
    def none(*_):
        raise NoGradient("element 0 of tensors does not require grad")

    monkeypatch.setattr(SoftPrompts, "go", none)
    found = probe(safe, Asked(seed=5, adaptive_steps=1))
    assert (
        not found.passed
        and "the search for a soft prompt did not run, this family's" in found.reasons[0]
    )
    assert found.report()["safety"][0]["adaptive"]["retained_in_function"] is None


def test_a_search_is_compared_with_what_the_safety_module_takes():
    assert Search(merged=0.2, safe=0.2, plain=0.1).retained == 1.0
    assert Search(merged=1.1, safe=0.2, plain=0.1).retained == pytest.approx(0.0)
    for odd in (Search(1.0, 1.0, 1.5), Search(float("nan"), 0.1, 0.1)):
        assert not odd.retained >= 0.85
