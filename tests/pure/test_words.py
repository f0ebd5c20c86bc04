"""Reports in words: the verdict first, a table, and what to do."""

import json

import pytest
from modular_safety_lora.audit.report import audit
from modular_safety_lora.audit.words import in_words as audit_in_words
from modular_safety_lora.drawing.markdown import share, table
from modular_safety_lora.lab.server import PACK
from modular_safety_lora.merge.words import in_words as merge_in_words
from modular_safety_lora.training.words import in_words as training_in_words

SAFETY = {
    "name": "safe.safetensors",
    "role": "safety",
    "strength": 1.0,
    "keys_matched": 4,
    "keys_total": 4,
    "retained_safety": 0.981,
}
TASK = {
    "name": "task.safetensors",
    "role": "task",
    "strength": 0.8,
    "keys_matched": 3,
    "keys_total": 5,
    "interference": {"retained_safety": 0.981},
}
MERGE = {
    "retained_safety": 0.981,
    "retained_in_function": 1.02,
    "in_function": "safe.safetensors: measured in the network's output on 8 prompts",
    "looks": [],
    "threshold": 0.9,
    "worst_layer": {"key": "a.weight", "retained_safety": 0.7, "safety": "safe.safetensors"},
    "low_layers": {},
    "modules": [SAFETY, TASK],
    "losses": [],
    "to_blame": [],
    "foreign_changes": [],
}
TRAINING = {
    "name": "task.safetensors",
    "role": "task",
    "steps": 20,
    "of_steps": 20,
    "seconds": 300.0,
    "keys": 12,
    "cancelled": False,
    "loss": {"first": {"task": 0.5}, "last": {"task": 0.25}},
    "previews": [],
    "safety_mode": "detached",
}


def test_a_table_keeps_its_columns_whatever_is_in_a_cell():
    assert table(["a", "name"], [["x|y", "1\n2"]]) == [
        "| a    | name |",
        "| ---- | ---- |",
        r"| x\|y | 1 2  |",
    ]
    assert share(0.9812) == "98.1 %" and share(None) == "-"


def test_a_merge_that_holds_says_so_first():
    lines = merge_in_words(MERGE).splitlines()
    assert lines[0] == (
        "**The safety LoRA holds**: 102.0 % of what it does is left (98.1 % over its weights)."
    )
    (row,) = (line for line in lines if line.startswith("| task.safetensors"))
    assert row.startswith("| task.safetensors | task   | 0.8      | 3 of 5 | 98.1 %      |")
    assert lines[-1].startswith("- Not applied: 2 weights of task.safetensors.")


def test_a_merge_that_was_not_measured_in_function_says_so_and_promises_less():
    why = {"retained_in_function": None, "in_function": "safe.safetensors: not measured: no clip"}
    text = merge_in_words(MERGE | why)
    assert text.startswith("**The safety LoRA is whole over its weights**: 98.1 % is left.")
    assert "- Not measured in what the network computes: safe.safetensors: no clip." in text


def test_a_merge_between_the_limits_asks_for_a_look():
    text = merge_in_words(MERGE | {"retained_in_function": 0.7, "looks": ["look: 0.7 is left"]})
    assert text.startswith("**Look at the pictures: less is left of the safety LoRA than usual.**")
    assert "- look: 0.7 is left\n- Sampling continues. Audit the pictures" in text


def test_a_merge_that_stops_says_why_and_the_way_out():
    lost = {"losses": ["one", "two", "three", "four"], "to_blame": ["task.safetensors"]}
    text = merge_in_words(MERGE | lost)
    assert text.startswith("**Sampling will stop")
    assert "- one\n- two\n- three\n- and 1 more finding\n" in text
    assert "To sample: remove task.safetensors, lower its strength" in text


def test_a_merge_names_weak_layers_other_bases_and_foreign_changes():
    more = {
        "low_layers": {"a.weight": 0.7},
        "base_warnings": ["made for another base"],
        "foreign_changes": [{}, {}],
    }
    text = merge_in_words(MERGE | more)
    assert "Less than 90 % is left in 1 layer; the least, 70.0 %, in a.weight" in text
    assert "- made for another base\n- Not measured: 2 other changes on the model" in text


def test_a_merge_ends_with_the_digest_that_operators_list():
    lines = merge_in_words(MERGE | {"base_sha256": "ab" * 32}).splitlines()
    assert lines[-1] == f"- base_sha256, for an operator's allowed_bases: {'ab' * 32}"
    assert "base_sha256" not in merge_in_words(MERGE | {"base_sha256": None})


@pytest.mark.parametrize(
    ("flags", "verdict", "advice"),
    [
        ([0.9, 0.2], "**1 of 2 pictures flagged**", "They went on changed (blur)."),
        ([0.2, 0.2], "**None of 2 pictures flagged**", "Nothing found in a few pictures"),
        ([0.2], "**None of 1 picture flagged**", "Nothing found in a few pictures"),
        ([], "**No picture was looked at**", "See where the pictures should have come from"),
    ],
)
def test_an_audit_begins_with_its_verdict_and_ends_with_advice(flags, verdict, advice):
    summary = _summary(flags)
    text = audit_in_words(summary, "blur", ["the lock found something"])
    assert text.startswith(verdict)
    assert "- the lock found something\n" in text and advice in text.splitlines()[-1]
    assert ("| thing | 0.5         | 1          | 1        |" in text) == (
        max(flags, default=0) > 0.5
    )


def test_a_run_says_what_it_did_and_what_is_next():
    text = training_in_words(TRAINING)
    assert text.startswith("**Trained: task.safetensors**, 20 of 20 steps in 5 min, 12 tensors.")
    assert "| task | 0.5         | 0.25       |" in text and "beside the safety LoRA" in text
    frozen = training_in_words(TRAINING | {"safety_mode": "frozen", "cancelled": True})
    assert frozen.startswith("**Stopped early") and "not for use" in frozen
    looks = [{"step": 0, "images": 0, "flagged": 0}, {"step": 9, "images": 4, "flagged": 1}]
    assert "| 9    | 1 of 4 (25.0 %)  |" in training_in_words(TRAINING | {"previews": looks})


def _summary(scores: list[float]) -> dict:
    import numpy as np
    from modular_safety_lora.audit.presets import read_presets

    class Fixed:
        name, version, provider = "fixed", "1", "cpu"
        classes, floor, batch = ("thing",), 0.1, 1

        def detect(self, pictures):
            score = scores[int(pictures[0][0, 0, 0])]
            return [[{"class": "thing", "score": score, "box": [0, 0, 1, 1]}]]

    rules = {"p": {"detector": "fixed", "thresholds": {"thing": 0.5}}}
    pictures = [np.full((2, 2, 3), number / 255, np.float32) for number in range(len(scores))]
    preset = read_presets(rules, "here")["p"]
    return audit(pictures, preset, detector=Fixed())["summary"]


@pytest.mark.parametrize("file", sorted(PACK.glob("workflows/*.json")), ids=lambda file: file.stem)
def test_a_node_that_shows_a_report_holds_a_line_of_its_tables(file):
    """Markdown is shown as it is there, and a line that wraps is no table: 500 pixels hold 75."""
    graph = json.loads(file.read_text(encoding="utf-8"))
    nodes = {node["id"]: node for node in graph["nodes"]}
    told = {
        link[3]: nodes[link[1]]["outputs"][link[2]]["name"] in ("summary", "table")
        for link in graph["links"]
        if nodes[link[3]]["type"] == "PreviewAny"
    }
    assert any(told.values())
    assert all(nodes[number]["size"][0] >= 500 for number, report in told.items() if report)
