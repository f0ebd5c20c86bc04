"""How the shipped workflows are laid out, and what each of them has."""

import copy
import csv
import json
from collections import Counter
from itertools import combinations

import pytest
from modular_safety_lora.lab import workflow_variants
from modular_safety_lora.lab.layout import arrange
from modular_safety_lora.lab.plans import EXPERIMENT, MERGE, PLANS, SAFETY, SETS
from modular_safety_lora.lab.server import PACK
from modular_safety_lora.lab.variants import VARIANTS

GRAPHS = {
    path.stem: json.loads(path.read_text(encoding="utf-8"))
    for path in sorted((PACK / "workflows").glob("*.json"))
    if path.stem in {*PLANS, *workflow_variants.names().values()}
}
FOLDERS = ("workflows", "workflows/api")
SAVES = {"SaveImage", "SaveAnimatedWEBP"}


def of(graph: dict, *kinds: str) -> list[dict]:
    return [node for node in graph["nodes"] if node["type"] in kinds]


def inside(node: dict, frame: list[float]) -> bool:
    """Is a node with its title within a group's frame?"""
    (x, y), (wide, high) = node["pos"], node["size"]
    left, top, across, down = frame
    return left <= x and top <= y - 30 and x + wide <= left + across and y + high <= top + down


def test_each_kind_and_each_variant_of_one_is_shipped():
    assert len(GRAPHS) == len(PLANS) + len(workflow_variants.KINDS) * len(VARIANTS)


def test_each_workflow_has_its_api_form():
    """What is in it is compared in the browser tier."""
    shipped, api = ({path.name for path in PACK.glob(f"{folder}/*.json")} for folder in FOLDERS)
    assert shipped == api, "run `python dev.py generate` where there is a Chromium"


@pytest.mark.parametrize("name", GRAPHS)
def test_a_workflow_has_a_note_groups_and_a_picture_that_is_saved(name):
    graph = GRAPHS[name]
    (note,) = of(graph, "MarkdownNote")
    text = note["widgets_values"][0]
    assert text.startswith("## ") and "**You need**" in text and "**It takes**" in text
    assert "**Look at**" in text or "**Expect**" in text
    assert of(graph, *SAVES)
    frames = [group["bounding"] for group in graph["groups"]]
    for node in graph["nodes"]:
        assert sum(inside(node, frame) for frame in frames) == (node is not note), node
    for (x, y, wide, high), (left, top, across, down) in combinations(frames, 2):
        assert x + wide <= left or left + across <= x or y + high <= top or top + down <= y
    assert [group["title"][:2] for group in graph["groups"]] == [
        f"{number}." for number in range(1, len(frames) + 1)
    ]


@pytest.mark.parametrize("name", GRAPHS)
def test_of_two_task_loras_one_is_bypassed(name):
    modes = [node["mode"] for node in of(GRAPHS[name], "MSL_LoadTaskLora")]
    assert modes in ([], [0], [0, 4])


@pytest.mark.parametrize("name", GRAPHS)
def test_every_link_is_known_at_both_its_ends(name):
    graph = GRAPHS[name]
    nodes = {node["id"]: node for node in graph["nodes"]}
    assert len(nodes) == len(graph["nodes"]) and graph["last_node_id"] == max(nodes)
    for number, source, output, target, slot, _ in graph["links"]:
        assert number in nodes[source]["outputs"][output]["links"]
        assert nodes[target]["inputs"][slot]["link"] == number


def test_a_workflow_that_is_moved_is_put_back_and_a_node_without_a_place_is_refused():
    kept = GRAPHS[MERGE]
    moved = copy.deepcopy(kept)
    for node in moved["nodes"]:
        node["pos"] = [7, 7]
    arrange(moved, PLANS[MERGE])
    assert moved == kept
    moved["nodes"].append({"id": 99, "type": "VAEDecode"})
    with pytest.raises(LookupError, match="99"):
        arrange(moved, PLANS[MERGE])


@pytest.mark.parametrize("name", [name for name in GRAPHS if name.endswith("erge and audit")])
def test_the_app_has_inputs_and_outputs_that_are_there(name):
    nodes = {node["id"]: node for node in GRAPHS[name]["nodes"]}
    told = GRAPHS[name]["extra"]["linearData"]
    for number, widget in told["inputs"]:
        assert widget in workflow_variants.values(nodes[int(number)])
    assert told["inputs"] and all(int(number) in nodes for number in told["outputs"])


def test_a_name_is_not_cut_on_its_card():
    """38 letters of the frontend's bold type fill a card in a window of 1280 pixels."""
    assert max(map(len, GRAPHS)) <= 36


MIXED = "six prompts of nudity and six harmless"


@pytest.mark.parametrize("name", [SETS, EXPERIMENT])
def test_what_counts_over_prompts_asks_for_the_concept_and_for_harmless_things(name):
    audits = of(GRAPHS[name], "MSL_AuditPromptSet")
    assert {workflow_variants.values(each)["prompts"] for each in audits} == {f"example: {MIXED}"}
    with (PACK / "evaluation" / "examples" / f"{MIXED}.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert Counter(row["categories"] for row in rows) == {"nudity": 6, "harmless": 6}
    assert len({row["sd_seed"] for row in rows}) == len(rows)


def test_training_a_safety_lora_shows_the_concept_beside_something_harmless():
    (train,) = of(GRAPHS[SAFETY], "MSL_TrainSafetyLora")
    concept, harmless = workflow_variants.values(train)["preview_prompts"].split("\n")
    assert "nude" in concept and "nude" not in harmless
    asked = next(node for node in GRAPHS[SAFETY]["nodes"] if node.get("title") == "Prompt")
    assert asked["widgets_values"] == [concept]
