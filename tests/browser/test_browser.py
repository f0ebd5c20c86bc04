"""The real frontend in a real browser: workflows load as they are shipped, nodes are whole."""

import json

import pytest
from modular_safety_lora.lab import shipped
from modular_safety_lora.lab.frontend import api_form, open_workflow, settle
from modular_safety_lora.lab.plans import MERGE, PLANS, TRY
from modular_safety_lora.lab.server import PACK
from screenshots import SCREENSHOTS, look_at, node_of, tried

WORKFLOWS = sorted(path.stem for path in (PACK / "workflows").glob("*.json"))


def types(name: str) -> set[str]:
    """The nodes of a workflow, by their ids."""
    graph = json.loads((PACK / "workflows" / f"{name}.json").read_text(encoding="utf-8"))
    return {node["type"] for node in graph["nodes"]}


# Each node, and the workflow that it is looked at in. None: it is in no workflow, and put into an
# empty graph.
NODES = {
    node_id: next((name for name in (*PLANS, TRY) if node_id in types(name)), None)
    for node_id in json.loads((PACK / "locales/en/nodeDefs.json").read_text(encoding="utf-8"))
}


# of SD1.5, and of one of the models that each have four
@pytest.mark.parametrize("name", tried(WORKFLOWS, lambda name: name in PLANS or "Flux" in name))
def test_a_workflow_loads_whole_and_is_exported_as_it_is_shipped(page, name):
    """No missing node or file, no warning; `python dev.py generate` writes what is exported."""
    open_workflow(page, name)
    state = page.evaluate("""() => ({
            types: app.graph._nodes.map((node) => node.type),
            unknown: app.graph._nodes
                .filter((node) => !LiteGraph.registered_node_types[node.type])
                .map((node) => node.type),
            broken: app.graph._nodes.filter((node) => node.has_errors).map((node) => node.type),
            wrong: app.graph._nodes.flatMap((node) => (node.widgets || [])
                .filter((widget) => widget.type === 'combo'
                                    && !widget.options.values.includes(widget.value))
                .map((widget) => `${node.type} ${widget.name} ${widget.value}`)),
            dialogs: [...document.querySelectorAll('.p-dialog, .p-toast-message')]
                .map((box) => box.innerText),
        })""")
    assert {node for node, where in NODES.items() if where == name} <= set(state["types"])
    workflow = json.loads((PACK / "workflows" / f"{name}.json").read_text(encoding="utf-8"))
    assert len(state["types"]) == len(workflow["nodes"])
    assert state["unknown"] == [] and state["broken"] == [] and state["dialogs"] == []
    assert state["wrong"] == []
    assert [
        line
        for line in page.console
        if line[0] in ("warning", "error") and "Failed to load resource" not in line[1]
    ] == []
    assert api_form(page, name) == shipped.api_form(name)


def test_a_workflow_offers_the_download_of_files_that_are_not_there(page, server):
    file = server.folder / "models" / "vae" / "qwen_image_vae.safetensors"
    file.unlink()
    page.evaluate("async () => app.refreshComboInNodes()")
    open_workflow(page, "Qwen-Image - Merge and audit")
    try:
        page.get_by_text("qwen_image_vae.safetensors is missing").wait_for(timeout=20_000)
        page.get_by_text("View details").click()
        page.get_by_text("Missing Models").first.wait_for(timeout=20_000)
        settle(page)
        page.screenshot(path=SCREENSHOTS / "missing-model.png")
        offered = page.get_by_role("button", name="Download").count()
        told = page.evaluate("() => document.body.innerText")
    finally:
        file.touch()
        page.evaluate("async () => app.refreshComboInNodes()")
        page.workflow = None
    assert offered and "qwen_image_vae.safetensors" in told


@pytest.mark.parametrize("name", WORKFLOWS)
def test_a_shipped_file_is_version_0_4_with_numbers_for_ids(name):
    workflow = json.loads((PACK / "workflows" / f"{name}.json").read_text(encoding="utf-8"))
    assert workflow["version"] == 0.4 and all(
        isinstance(node["id"], int) for node in workflow["nodes"]
    )
    for kind in ("json", "jpg"):
        assert {path.stem for path in (PACK / "workflows").glob(f"*.{kind}")} == set(WORKFLOWS)


@pytest.mark.parametrize("node_type", NODES)
def test_nodes_are_drawn_whole_with_tooltips(page, node_type):
    open_workflow(page, NODES[node_type])
    node_id = node_of(page, node_type)
    look_at(page, node_id, f"{node_type}.png", scale=0.85 if "Train" in node_type else 1.4)
    state = page.evaluate(
        """(id) => {
            const node = app.graph.getNodeById(id)
            const inputs = Object.values(node.constructor.nodeData.inputs)
            const bare = inputs.filter((each) => !each.tooltip).length
            return { size: [...node.size], least: [...node.computeSize()], bare }
        }""",
        node_id,
    )
    assert state["size"][0] >= state["least"][0] and state["size"][1] >= state["least"][1]
    assert state["bare"] == 0


def test_tooltips_show_on_hover(page):
    open_workflow(page, MERGE)
    node_id = node_of(page, "MSL_LoadSafetyLora")
    look_at(page, node_id, "tooltip.png", scale=1.4)
    at = page.evaluate(
        """(id) => {
            const node = app.graph.getNodeById(id), view = app.canvas.ds
            const box = app.canvas.canvas.getBoundingClientRect()
            const widget = node.widgets.find((each) => each.name === 'sha256')
            const place = [node.pos[0] + 0.2 * node.size[0], node.pos[1] + widget.last_y + 10]
            const corner = [box.left, box.top]
            return place.map(
                (value, axis) => corner[axis] + (value + view.offset[axis]) * view.scale)
        }""",
        node_id,
    )
    page.mouse.move(at[0] - 3, at[1])
    page.mouse.move(*at, steps=4)
    page.get_by_text("The seal that this workflow expects.").wait_for(timeout=10_000)
    settle(page)
    page.screenshot(path=SCREENSHOTS / "tooltip.png")
    page.mouse.move(5, 5)


@pytest.mark.parametrize("node_type", tried(NODES, lambda kind: "Load" in kind or "Task" in kind))
def test_the_help_page_opens_in_the_node_info(page, node_type):
    open_workflow(page, NODES[node_type])
    title = page.evaluate("(type) => LiteGraph.registered_node_types[type].title", node_type)
    node_id = node_of(page, node_type)
    page.evaluate(
        "(id) => { app.canvas.deselectAll(); app.canvas.selectNode(app.graph.getNodeById(id)) }",
        node_id,
    )
    look_at(page, node_id, f"{node_type}-selected.png", scale=0.6 if "Train" in node_type else 1.0)
    page.get_by_test_id("info-button").first.click(timeout=10_000)
    page.get_by_role("heading", name=title, exact=True).last.wait_for(timeout=10_000)
    settle(page)
    page.screenshot(path=SCREENSHOTS / f"{node_type}-help.png")
