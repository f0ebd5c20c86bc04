"""What a lock found belongs to the sampling it was asked at, and to its pictures."""

import json

import pytest
import torch
from comfy_api.latest import InputImpl
from comfy_execution.graph import DynamicPrompt
from comfy_execution.progress import reset_progress_state
from comfy_execution.utils import CurrentNodeContext
from films import CUP, film
from modular_safety_lora.merge.findings import KEPT, OTHER_PATCHES, Findings, findings
from modular_safety_lora.nodes import running
from modular_safety_lora.nodes.nudity_audit import NudityAudit
from modular_safety_lora.nodes.running import place_of
from modular_safety_lora.nodes.video_audit import AuditVideo

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
    found.note("a wrapper", kind=OTHER_PATCHES)
    assert found.at([None], OTHER_PATCHES) == ["a wrapper"]
    assert own == ["within"] and found.at([None]) == ["after"]
    for place in range(KEPT + 10):
        found.where = lambda place=place: (place, 1)
        found.note("x")
    assert found.at([None, 0]) == [] and found.at([KEPT]) == ["x"]


def test_an_audit_that_another_program_executes_reads_its_own_prompt_alone(monkeypatch):
    """Without this server's queue the graph is not known: then all of a prompt is one place."""
    monkeypatch.setattr(findings, "where", running.here)

    def audited(prompt_id: str) -> list[str]:
        with CurrentNodeContext(prompt_id, "3"):
            return json.loads(
                NudityAudit.execute(
                    torch.zeros(1, 64, 64, 3), preset="strict", threshold=0.0, action="none"
                ).args[2]
            )["lock_findings"]

    for prompt_id, message in (("one", ["the safety LoRA's change is gone"]), ("two", [])):
        with CurrentNodeContext(prompt_id, "2"):
            findings.note(*message)
    assert audited("one") == ["the safety LoRA's change is gone"] and audited("two") == []


LOOP = {
    "1": GRAPH["1"],
    "2": GRAPH["2"],
    "12": {"class_type": "StartLoop", "inputs": {"count": 2, "carried": ["1", 0]}},
    "5": {"class_type": "KSampler", "inputs": {"model": ["12", 0], "seed": 5}},
    "6": {"class_type": "MSL_NudityAudit", "inputs": {"images": ["2", 0], "beside": ["12", 1]}},
    "13": {"class_type": "EndLoop", "inputs": {"start": ["12", 0], "image": ["5", 0]}},
    "7": {"class_type": "MSL_NudityAudit", "inputs": {"images": ["13", 0]}},
}


@pytest.mark.parametrize(
    ("sampler", "audit", "found"),
    [("2", "12.0.0.1_6", True), ("12.0.0.1_5", "7", True), ("12.0.0.0_5", "12.0.0.1_6", False)],
    ids=["from before the loop", "from the loop", "beside each other in the loop"],
)
def test_in_a_loop_a_finding_goes_where_its_pictures_go(monkeypatch, sampler, audit, found):
    """Newer hosts run copies of what is in a loop, and know whose they are."""
    prompt, noted = DynamicPrompt(LOOP), Findings()
    for turn in range(2):
        for node in ("5", "6"):
            prompt.add_ephemeral_node(f"12.0.0.{turn}_{node}", LOOP[node], "12", node)
    prompt.add_ephemeral_node("12.0.0.9", {}, "12", "12")  # made by it, and no copy
    reset_progress_state("one", prompt)
    monkeypatch.setattr(running, "_graph", lambda prompt_id: LOOP)
    noted.where = running.here
    with CurrentNodeContext("one", sampler):
        noted.note("gone")
    with CurrentNodeContext("one", "12.0.0.9"):
        assert running.here()[0] == place_of("12", LOOP)
    with CurrentNodeContext("one", audit):
        assert bool(noted.at(running.upstream())) == found
    reset_progress_state("", DynamicPrompt({}))


def test_a_node_of_a_loop_is_not_taken_for_the_loop_of_another_graph(monkeypatch):
    other = json.loads(json.dumps(LOOP))
    other["5"]["inputs"]["seed"] = 6
    noted = Findings()
    noted.where = running.here
    for number, graph in enumerate((LOOP, other)):
        prompt = DynamicPrompt(graph)
        prompt.add_ephemeral_node("12.0.0.0_5", graph["5"], "12", "5")
        reset_progress_state(str(number), prompt)
        monkeypatch.setattr(running, "_graph", lambda prompt_id, graph=graph: graph)
        with CurrentNodeContext(str(number), "12.0.0.0_5"):
            noted.note(*(["gone"] if graph is LOOP else []))
        with CurrentNodeContext(str(number), "7"):
            assert noted.at(running.upstream()) == (["gone"] if graph is LOOP else [])
    monkeypatch.setattr(running, "_graph", lambda prompt_id: LOOP)
    with CurrentNodeContext("2", "7"):
        assert noted.at(running.upstream()) == ["gone"], "the first graph's sampler, cached"
    reset_progress_state("", DynamicPrompt({}))


def test_an_audit_of_a_video_says_what_locks_found_while_it_was_made(monkeypatch, tmp_path):
    monkeypatch.setattr(findings, "where", running.here)
    video = InputImpl.VideoFromFile(str(film(tmp_path / "cup.mp4", lambda _: CUP, seconds=1.0)))
    with CurrentNodeContext("made", "2"):
        findings.note("the safety LoRA's change is gone")
        findings.note("a wrapper", kind=OTHER_PATCHES)
    with CurrentNodeContext("made", "3"):
        _, passed, report, _, words = AuditVideo.execute(video, preset="faces").args
    told = json.loads(report)
    assert passed and told["lock_findings"] == ["the safety LoRA's change is gone"]
    assert told["other_patches"] == ["a wrapper"]
    assert "- the safety LoRA's change is gone" in words and "No safety LoRA" not in words
