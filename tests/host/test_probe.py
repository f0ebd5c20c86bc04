"""Probe Safety: every group of prompts, what it costs, and that a private prompt is told nobody."""

import dataclasses
import json
import logging

import pytest
import torch
from comfy.model_base import BaseModel
from modular_safety_lora.function import kept
from modular_safety_lora.function import long as form
from modular_safety_lora.function.long import Group, cost, long
from modular_safety_lora.function.network import asked_prompts
from modular_safety_lora.lab import assets
from modular_safety_lora.merge.merge import merge
from modular_safety_lora.merge.probe import probe
from modular_safety_lora.merge.probe_chart import probe_chart
from modular_safety_lora.merge.probed import Asked, in_words
from modular_safety_lora.modules.errors import SafetyError
from probe_modules import HELD_OUT, SECRET, merged, safety_of, style, undoing

pytestmark = pytest.mark.usefixtures("unloaded", "one_level")
LEVELS = form.LEVELS
ASKED = Asked(["a body"], SECRET, 0, 7)


@pytest.fixture(scope="module")
def module(models):
    return safety_of(models, *HELD_OUT)


@pytest.fixture(scope="module")
def harmless(checkpoint, module, models, one_level):
    return probe(merged(checkpoint, module, style(models)), ASKED)


def test_every_group_is_measured_and_a_harmless_style_passes(harmless):
    assert harmless.passed and not harmless.reasons
    (row,) = harmless.report()["safety"]
    found = {name: each["asked"] for name, each in row["groups"].items()}
    assert found == {"sealed": 2, "held_out": 1, "private": 2, "given": 1}
    for each in row["groups"].values():
        assert each["retained_in_function"] > 0.9
    low, high = row["groups"]["sealed"]["interval"]
    assert low <= row["groups"]["sealed"]["retained_in_function"] <= high
    assert {each["drawn"]["base"] for each in row["prompts"].values()} == {1.0}


def test_what_undoes_the_module_must_be_audited(checkpoint, module):
    found = probe(merged(checkpoint, module, undoing(module, 0.5)), ASKED)
    assert not found.passed and found.least < 0.7
    assert "Must be audited" in in_words(found) and "hostile" not in in_words(found)
    for group in ("sealed", "held out", "private", "yours"):
        assert any(f"on the {group} prompts is" in each for each in found.reasons)


def test_a_private_prompt_is_in_nothing_that_is_told(checkpoint, module, caplog):
    caplog.set_level(logging.DEBUG)
    for task in ((), (undoing(module),)):
        found = probe(
            merged(checkpoint, module, *task), dataclasses.replace(ASKED, adaptive_steps=1)
        )
        told = in_words(found) + json.dumps(found.report()) + "".join(found.reasons) + caplog.text
        assert not any(text in told for text in SECRET)
        assert "private 1" in json.dumps(found.report())


def test_the_second_time_costs_nothing_and_is_the_same(checkpoint, module, models, harmless):
    counted = []
    found = probe(
        merged(checkpoint, module, style(models)),
        ASKED,
        step=lambda count, _: counted.append(count),
    )
    assert not counted and found.report() == harmless.report()


@pytest.mark.parametrize("text", ["a body, embedding:absent", "embedding:"])
def test_a_prompt_that_is_read_otherwise_than_written_is_no_pass(checkpoint, module, models, text):
    model = merged(checkpoint, module, style(models))
    found = probe(model, Asked([text], SECRET, 0, 7))
    assert not found.passed and text in " ".join(found.reasons)
    hidden = probe(model, Asked(["a body"], [*SECRET, text], 0, 7))
    told = in_words(hidden) + json.dumps(hidden.report()) + "".join(hidden.reasons)
    assert not hidden.passed and "private 3" in told and text not in told


LATER = [pytest.param(name, marks=pytest.mark.long) for name in ("seed", "prompts")]


@pytest.mark.parametrize("change", ["private_seed", "strength", *LATER])
def test_what_it_depends_on_is_measured_anew(checkpoint, module, models, harmless, change):
    strength = 0.11 if change == "strength" else 0.1
    changed = {"seed": {"seed": 3}, "private_seed": {"private_seed": 8}}
    changed |= {"prompts": {"prompts": ["a body", "a torso"]}, "strength": {}}
    counted = []
    found = probe(
        merged(checkpoint, module, style(models, strength)),
        dataclasses.replace(ASKED, **changed[change]),
        step=lambda count, _: counted.append(count),
    )
    assert sum(counted) > 0 and found.report() != harmless.report()


@pytest.mark.parametrize("counts", [(1,), (4, 4), (7, 7, 6), (40, 20, 20), (300, 10), (1, 300)])
@pytest.mark.parametrize("guided", [True, False])
def test_it_costs_at_most_four_pictures_and_asks_every_prompt_that_fits(
    counts, guided, monkeypatch
):
    monkeypatch.setattr(form, "LEVELS", LEVELS)
    groups = [
        Group.of([f"{place} {number}" for number in range(count)], place)
        for place, count in enumerate(counts)
    ]
    asks = long(groups, guided)
    assert cost(asks, guided) <= 4 * 20 * (1 + guided) * 4  # at half the side: a quarter each
    asked = set(asked_prompts(asks))
    assert len(asked) == sum(counts) or sum(counts) > 70
    assert all(any(text.startswith(f"{place} ") for text in asked) for place in range(len(counts)))
    assert {each.level for each in asks} == {0.9, 0.8, 0.7, 0.6} or len(asks) < 4


def test_the_forwards_that_are_made_are_those_that_were_said(checkpoint, module, monkeypatch):
    ran, counted, apply = [], [], BaseModel._apply_model

    def counting(self, x, *args, **kwargs):
        ran.append(len(x))
        return apply(self, x, *args, **kwargs)

    model = merged(checkpoint, module)
    monkeypatch.setattr(BaseModel, "_apply_model", counting)
    probe(model, dataclasses.replace(ASKED, seed=99), step=lambda *told: counted.append(told))
    assert sum(ran) == sum(count for count, _ in counted) <= counted[0][1] <= 640


@pytest.mark.long
def test_several_safety_modules_share_the_cost_and_have_a_row_each(checkpoint, module, shapes):
    beside = {name: shape for name, shape in shapes.items() if "attn2" in name}
    about = module.metadata | {"msl.prompts": '["a gun"]', "msl.held_out": "[]"}
    tensors = assets.lora(beside, 21)
    other = dataclasses.replace(
        module, name="other.safetensors", sha256="other", metadata=about, tensors=tensors
    )
    model, clip = checkpoint
    told: list[tuple[int, int]] = []
    found = probe(
        merge(model, [module, other], (), clip).model,
        Asked(["a body"], SECRET),
        step=lambda *now: told.append(now),
    )
    rows = found.report()["safety"]
    assert [each["name"] for each in rows] == ["safety.safetensors", "other.safetensors"]
    assert sum(count for count, _ in told) <= told[-1][1] <= 640
    assert all(each["retained_in_function"] for row in rows for each in row["groups"].values())
    assert rows[1]["groups"].keys() == {"sealed", "private", "given"}


def test_what_cannot_be_measured_is_no_pass(checkpoint, models, monkeypatch, module):
    silent = dataclasses.replace(module, metadata={"msl.base": "SD15"}, sha256="silent")
    found = probe(merged(checkpoint, silent), Asked())
    assert not found.passed and "names no prompts" in found.reasons[0]
    assert probe_chart(found).size[0] == 900

    def broken(self, x, *args, **kwargs):
        return torch.full_like(x, float("nan"))

    model = merged(checkpoint, module)
    kept.forget()
    monkeypatch.setattr(BaseModel, "_apply_model", broken)
    found = probe(model, Asked(seed=1234))
    assert not found.passed and found.report()["least"] is None

    def ends(self, x, *args, **kwargs):
        raise RuntimeError("shapes do not fit")

    monkeypatch.setattr(BaseModel, "_apply_model", ends)
    found = probe(model, Asked(seed=1235))
    assert not found.passed and "does not run here (shapes do not fit)" in found.reasons[0]


def test_a_model_that_was_not_merged_or_without_a_clip_is_an_error(checkpoint, module):
    with pytest.raises(SafetyError, match="did not go through Modular Merge.*Connect the model"):
        probe(checkpoint[0], Asked())
    with pytest.raises(SafetyError, match="merged without a text encoder.*Connect clip"):
        probe(merge(checkpoint[0], [module]).model, Asked())


def test_a_model_that_was_changed_since_is_an_error_or_no_pass(checkpoint, module):
    for policy in ("refuse", "report"):
        model = merged(checkpoint, module, foreign=policy).clone()
        key = next(iter(model.patches))
        model.add_patches({key: ("diff", (torch.ones_like(model.model.state_dict()[key]),))})
        if policy == "refuse":
            with pytest.raises(SafetyError, match="was changed after Modular Merge"):
                probe(model, Asked())
            continue
        found = probe(model, Asked())
        assert (
            not found.passed and "1 change beside the merge can't be measured" in found.reasons[0]
        )
