"""The subgraph blueprints: the frontend offers them, and what it makes of them runs."""

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor

import pytest
from modular_safety_lora.lab import shipped
from modular_safety_lora.lab.frontend import settle
from modular_safety_lora.lab.plans import MERGE
from modular_safety_lora.lab.server import PACK, PACK_NAME
from screenshots import SCREENSHOTS

BLUEPRINTS = sorted((PACK / "subgraphs").glob("*.json"))
INSIDE = {
    "Safe Model": {"MSL_LoadSafetyLora", "MSL_ModularMerge"},
    "Audited Picture": {"KSampler", "VAEDecode", "MSL_NudityAudit"},
}


def exported(page, file) -> dict[str, dict]:
    """The API form of a blueprint by its nodes' types, with their numbers."""
    page.console.clear()
    graph = json.loads(file.read_text(encoding="utf-8"))
    page.evaluate("async (graph) => app.loadGraphData(graph)", graph)
    settle(page)
    page.workflow = None
    page.screenshot(path=SCREENSHOTS / f"{file.stem}.png")
    return page.evaluate("async () => (await app.graphToPrompt()).output")


def test_the_frontend_offers_them(page, server):
    found = {
        each["name"]
        for each in server.get("/global_subgraphs").json().values()
        if each["info"]["node_pack"] == f"custom_nodes.{PACK_NAME}"
    }
    assert found == set(INSIDE) == {file.stem for file in BLUEPRINTS}
    page.evaluate("() => app.graph.clear()")
    page.mouse.dblclick(800, 500)
    page.keyboard.type("Safe Model", delay=20)
    page.get_by_text("Subgraph Blueprints / Safety").first.wait_for(timeout=20_000)
    page.screenshot(path=SCREENSHOTS / "blueprint-search.png")
    page.keyboard.press("Escape")


@pytest.mark.parametrize("file", BLUEPRINTS, ids=lambda file: file.stem)
def test_one_is_one_node_with_the_widgets_that_people_set(page, file):
    inside = exported(page, file)
    assert {node["class_type"] for node in inside.values()} == INSIDE[file.stem]
    assert page.evaluate("() => app.graph._nodes.length") == 1
    widgets = page.evaluate("() => app.graph._nodes[0].widgets.map((each) => each.value)")
    assert widgets and None not in widgets
    complaints = [line for line in page.console if line[0] in ("warning", "error")]
    # not the pack's: the second newer frontends say of themselves, as they open a subgraph
    theirs = ("Failed to load resource", "input.link is deprecated")
    assert [line for line in complaints if not any(each in line[1] for each in theirs)] == []


def test_both_do_in_a_graph_what_the_shipped_workflow_does(page, server):
    prompt = shipped.prompt(MERGE)
    numbers = {}
    for file in BLUEPRINTS:
        for number, node in exported(page, file).items():
            at = f"{file.stem} {number}"
            numbers[node["class_type"]] = at, number
            prompt[at] = node
            node["inputs"] = {
                name: [f"{file.stem} {value[0]}", value[1]] if isinstance(value, list) else value
                for name, value in node["inputs"].items()
            }
    outer = {node["class_type"]: number for number, node in prompt.items() if " " not in number}
    for kind, names in {
        "MSL_ModularMerge": ("model", "clip", "tasks"),
        "KSampler": ("positive", "negative", "latent_image", "steps"),
        "VAEDecode": ("vae",),
    }.items():
        for name in names:
            prompt[numbers[kind][0]]["inputs"][name] = prompt[outer[kind]]["inputs"][name]
    merged, sampler = numbers["MSL_ModularMerge"][0], numbers["KSampler"][0]
    prompt[sampler]["inputs"] |= {"model": [merged, 0], "seed": 42, "cfg": 7}
    prompt["seen"] = {
        "class_type": "SaveImage",
        "inputs": {"images": [numbers["MSL_NudityAudit"][0], 0], "filename_prefix": "seen"},
    }
    with ThreadPoolExecutor() as beside:  # Playwright has an event loop of its own in this thread
        outcome = beside.submit(asyncio.run, server.run(prompt)).result()
    assert outcome.error is None, outcome.error
    stock = next(
        number
        for number, node in prompt.items()
        if node["class_type"] == "SaveImage" and number != "seen"
    )
    pictures = [
        [server.picture(each) for each in outcome.outputs[number]["images"]]
        for number in ("seen", stock)
    ]
    assert len(pictures[0]) == 2 and pictures[0] == pictures[1]
