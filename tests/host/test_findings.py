"""What a lock found belongs to the sampling it was asked at, and to its pictures."""

import json

import torch
from comfy_execution.utils import CurrentNodeContext
from modular_safety_lora.merge.findings import BESIDE, KEPT, Findings, findings
from modular_safety_lora.nodes.nudity_audit import NudityAudit
from modular_safety_lora.nodes.running import place_of

GRAPH = {
    "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "a.safetensors"}},
    "2": {"class_type": "KSampler", "inputs": {"model": ["1", 0], "seed": 1, "list": ["x", 0]}},
    "3": {"class_type": "MSL_NudityAudit", "inputs": {"images": ["2", 0], "preset": "strict"}},
}


def changed(**values) -> dict:
    """The graph with other inputs: `n<node>__<input>=value`."""
    graph = json.loads(json.dumps(GRAPH))
    for place, value in values.items():
        node, name = place.removeprefix("n").split("__")
        graph[node]["inputs"][name] = value
    return graph


def test_a_place_is_the_work_and_not_the_numbers_of_the_nodes():
    renamed = {f"9{node}": each for node, each in json.loads(json.dumps(GRAPH)).items()}
    renamed["92"]["inputs"]["model"][0], renamed["93"]["inputs"]["images"][0] = "91", "92"
    assert place_of("2", GRAPH) == place_of("92", renamed) and (
        place_of("3", GRAPH) == place_of("93", renamed)
    )
    assert place_of("2", changed(n3__preset="faces")) == place_of("2", GRAPH)
    for other in (
        changed(n1__ckpt_name="b.safetensors"),
        changed(n2__seed=2),
        changed(n2__model=["1", 1]),
    ):
        assert place_of("2", other) != place_of("2", GRAPH) and (
            place_of("3", other) != place_of("3", GRAPH)
        )
    circle = changed(n1__back=["2", 0])
    assert place_of("2", circle)


def test_a_finding_stays_with_its_place_until_that_place_samples_anew():
    found, now = Findings(), ["a", 1]
    found.where = lambda: tuple(now)
    found.note("first")
    found.note("second")  # another sampling of the same node in the same run
    found.note()
    now[:] = ["b", 1]
    found.note()
    assert found.at(["a"]) == ["first", "second"] and found.at(["b"]) == [] == found.at(["c"])
    assert found.at(["b", "a"]) == ["first", "second"]
    now[:] = ["a", 2]
    found.note()
    assert found.at(["a"]) == []


def test_outside_of_prompts_the_last_sampling_counts_and_a_block_gathers_its_own():
    found = Findings()
    found.note("before")
    with found.gathered() as own:
        found.note("within")
        found.note("within")
        found.note()
    found.note("after")
    found.note("a wrapper", kind=BESIDE)
    assert found.at([None], BESIDE) == ["a wrapper"]
    assert own == ["within"] and found.at([None]) == ["after"]
    for place in range(KEPT + 10):
        found.where = lambda place=place: (place, 1)
        found.note("x")
    assert found.at([None, 0]) == [] and found.at([KEPT]) == ["x"]


def test_an_audit_that_another_program_executes_reads_its_own_prompt_alone(monkeypatch):
    """Without this server's queue the graph is not known: then all of a prompt is one place."""
    from modular_safety_lora.nodes import running

    monkeypatch.setattr(findings, "where", running.here)

    def audited(prompt_id: str) -> list[str]:
        with CurrentNodeContext(prompt_id, "3"):
            return json.loads(
                NudityAudit.execute(torch.zeros(1, 64, 64, 3), "strict", 0.0, "none").args[2]
            )["lock_findings"]

    for prompt_id, message in (("one", ["the safety change is gone"]), ("two", [])):
        with CurrentNodeContext(prompt_id, "2"):
            findings.note(*message)
    assert audited("one") == ["the safety change is gone"] and audited("two") == []
