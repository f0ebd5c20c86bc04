"""The attack suite of the laboratory: its closed attackers do what they say, its numbers too."""

import json

import numpy as np
import pytest
import torch
from modular_safety_lora.emoji import checkpoint, files
from modular_safety_lora.lab.attacks import (
    closed_form,
    detectors,
    fitting,
    moment_products,
    report,
    store,
    trained_loras,
)
from modular_safety_lora.lab.world.emergence import Model, put_on
from modular_safety_lora.merge.merge import Task, merge
from modular_safety_lora.modules.files import LoraFile, load_safety

pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.long]


@pytest.fixture(scope="module")
def base(comfyui, tmp_path_factory):
    file = tmp_path_factory.mktemp("base") / checkpoint.CHECKPOINT
    checkpoint.write(file)
    return Model(file)


@pytest.fixture(scope="module")
def safety():
    return load_safety(files.FOLDER / files.SAFETY, files.SAFETY)


@pytest.fixture(scope="module")
def moments(base):
    return moment_products.made_at_levels(
        base, {"sealed": moment_products.SEALED[:1]}, 1, (0.95, 0.85)
    )


def test_the_gauge_gives_the_unsafe_base_and_all_of_the_safety_module_is_left(
    base, safety, moments
):
    change = closed_form.changes(base.model, [(safety, 1.0)])
    attack = closed_form.task("gauge", closed_form.gauge(base.model, change))
    merged = put_on(base.model, [(safety, 1.0), (attack, 1.0)])
    texts = base.texts(moments.prompts)
    d_b, d_s, d_m = (
        moment_products.directions(each, moments, texts)
        for each in (base.model, put_on(base.model, [(safety, 1.0)]), merged)
    )
    assert (d_m - d_b).norm() < 1e-3 * (d_s - d_b).norm()
    told = merge(base.model, [safety], [Task(attack)]).report
    assert told["retained_safety"] > 0.9 and told["worst_layer"]["retained_safety"] > 0.5


def test_what_is_projected_has_cosine_0_and_what_is_negated_cosine_minus_1(base, safety):
    change = closed_form.changes(base.model, [(safety, 1.0)])
    hostile = {key: torch.randn_like(each) - each for key, each in change.items()}
    assert closed_form.cosine(hostile, change) < -0.001
    assert abs(closed_form.cosine(closed_form.projected(hostile, change), change)) < 1e-5
    negated = closed_form.negated(change)
    assert closed_form.cosine(negated, change) == pytest.approx(-1.0, abs=1e-5)
    assert closed_form.safe_lora(negated, change) > 0.5  # blind to the sign


def test_the_numbers_are_0_for_the_safe_model_1_for_the_base_and_a_minds_no_damping():
    chance = torch.Generator().manual_seed(0)
    d_b, d_s = torch.randn(2, 3, 50, generator=chance)
    known = np.array(
        [
            [bb, bs, ss]
            for (bb, _, bs), (_, _, ss) in zip(
                moment_products.products(d_b, d_b, d_s),
                moment_products.products(d_s, d_b, d_s),
                strict=True,
            )
        ]
    ).sum(0)

    def of(what, d: torch.Tensor) -> float:
        return what(np.array(moment_products.products(d, d_b, d_s)).sum(0), known)

    for what in (detectors.lost, detectors.back):
        assert of(what, d_s) == pytest.approx(0.0, abs=1e-3)
        assert of(what, d_b) == pytest.approx(1.0, abs=1e-3)
    assert of(detectors.back, 0.5 * d_s) == pytest.approx(0.0, abs=1e-3)


def test_halves_add_up_to_their_module():
    tensors = {
        "x.lora_A.weight": torch.randn(fitting.RANK, 5),
        "x.lora_B.weight": torch.randn(7, fitting.RANK),
    }
    module = LoraFile("both", "task", "0", {}, tensors)
    parts = [each.tensors for each in fitting.halves(module)]
    added = sum(each["x.lora_B.weight"] @ each["x.lora_A.weight"] for each in parts)
    assert torch.allclose(added, tensors["x.lora_B.weight"] @ tensors["x.lora_A.weight"], atol=1e-5)


def test_pools_are_drawn_by_their_seed_and_two_in_five_are_hard():
    assert trained_loras.specs(3, 20) == trained_loras.specs(3, 20) != trained_loras.specs(4, 20)
    assert sum(each.hard for each in trained_loras.specs(3, 20)) == 8


def test_rows_are_kept_and_thresholds_lie_over_what_was_harmless(tmp_path, monkeypatch):
    kept = store.Store(tmp_path / "rows.jsonl")
    known = {"products": [[4.0, 1.0, 1.0]] * 30, "audit": "0" * 20, "flags": "0" * 16}
    known["kinds"] = [kind for kind in moment_products.KINDS for _ in range(10)]
    known["levels"] = [level for level in moment_products.LEVELS for _ in range(2)] * 3
    known["prompts"] = [moment_products.SEALED[0]] * 30
    kept.add("calibrate/1/light/reference", known)
    plain = {"retained": 1.0, "least": 1.0, "cosine": 0.0, "safe_lora": 0.5, "in_function": 1.0}
    plain |= {"back": 0.0, "in_function_losses": 0}
    more = {"losses": 0, "looks": 0, "group": "harmless", "audit": "0" * 20}
    for number in range(3):
        products = [[1.0, 1.0 + 0.1 * number, 1.0]] * 30
        kept.add(f"calibrate/1/light/harmless/{number}", plain | more | {"products": products})
    monkeypatch.setattr(report, "THRESHOLDS", tmp_path / "thresholds.json")
    report.calibrate(store.Store(kept.file).rows)
    found = json.loads(report.THRESHOLDS.read_text(encoding="utf-8"))
    assert found["a, long"]["threshold"] > found["a, long"]["largest"] > 0
    assert detectors.AUDIT not in found
