"""The real frontend in a real browser: the shipped workflows load, run and can be read.

What they export is what is shipped.
"""

import json

import pytest
from modular_safety_lora.lab.frontend import api_form, browsing, open_workflow, opened
from modular_safety_lora.lab.server import PACK

SCREENSHOTS = PACK / "test-output"
NAME = "Modular merge and audit"
SAFETY, TASK = "Train a safety LoRA", "Train a task LoRA beside it"
COMPARE, SETS = "Compare base and modular", "Audit a prompt set"
EXPERIMENT = "Fine-tune a safe model and compare"
WORKFLOWS = sorted(path.stem for path in (PACK / "workflows").glob("*.json"))
# Each node, and the workflow that it is looked at in. None: it is in no workflow, and put into an
# empty graph.
NODES = {
    "MSL_AuditPromptSet": SETS,
    "MSL_CompareAudits": COMPARE,
    "MSL_LoadSafetyLora": NAME,
    "MSL_LoadTaskLora": NAME,
    "MSL_ModularMerge": NAME,
    "MSL_NudityAudit": NAME,
    "MSL_SealSafetyLora": None,
    "MSL_TrainSafetyLora": SAFETY,
    "MSL_TrainTaskLora": TASK,
}


@pytest.fixture(scope="module")
def browser(chromium):
    with browsing(chromium) as running:
        yield running


@pytest.fixture(scope="module")
def page(browser, server):
    """ComfyUI's frontend."""
    SCREENSHOTS.mkdir(exist_ok=True)
    return opened(browser, server.url)


def shipped(name: str) -> dict:
    return json.loads((PACK / "workflows" / "api" / f"{name}.json").read_text(encoding="utf-8"))


def look_at(page, node_id: int, file: str, scale: float = 1.4) -> None:
    """Bring one node to the middle of the screen and take its picture."""
    page.evaluate(
        """([id, scale]) => {
            const node = app.graph.getNodeById(id), view = app.canvas.ds
            const box = app.canvas.canvas.getBoundingClientRect()
            view.scale = scale
            view.offset = [box.width / scale / 2 - node.pos[0] - node.size[0] / 2,
                           box.height / scale / 2 - node.pos[1] - node.size[1] / 2]
            app.canvas.setDirty(true, true)
        }""",
        [node_id, scale],
    )
    page.wait_for_timeout(600)
    page.screenshot(path=SCREENSHOTS / file)


def node_of(page, node_type: str) -> int:
    """The number of the first node of a type; a graph that has none gets one."""
    return page.evaluate(
        """(type) => {
            const found = app.graph._nodes.find((node) => node.type === type)
            if (found) return found.id
            const made = LiteGraph.createNode(type)
            app.graph.add(made)
            return made.id
        }""",
        node_type,
    )


@pytest.mark.parametrize("name", WORKFLOWS)
def test_a_workflow_loads_with_no_missing_node_and_no_warning(page, name):
    open_workflow(page, name)
    state = page.evaluate("""() => ({
            types: app.graph._nodes.map((node) => node.type),
            unknown: app.graph._nodes
                .filter((node) => !LiteGraph.registered_node_types[node.type])
                .map((node) => node.type),
            broken: app.graph._nodes.filter((node) => node.has_errors).map((node) => node.type),
            dialogs: [...document.querySelectorAll('.p-dialog, .p-toast-message')]
                .map((box) => box.innerText),
        })""")
    assert {node for node, where in NODES.items() if where == name} <= set(state["types"])
    workflow = json.loads((PACK / "workflows" / f"{name}.json").read_text(encoding="utf-8"))
    assert len(state["types"]) == len(workflow["nodes"])
    assert state["unknown"] == [] and state["broken"] == [] and state["dialogs"] == []
    assert [
        line
        for line in page.console
        if line[0] in ("warning", "error") and "Failed to load resource" not in line[1]
    ] == []


@pytest.mark.parametrize("name", WORKFLOWS)
def test_every_chosen_file_is_one_of_the_nodes_choices(page, name):
    open_workflow(page, name)
    wrong = page.evaluate("""() => app.graph._nodes.flatMap((node) => (node.widgets || [])
            .filter((widget) => widget.type === 'combo'
                                && !widget.options.values.includes(widget.value))
            .map((widget) => `${node.type} ${widget.name} ${widget.value}`))""")
    assert wrong == []


@pytest.mark.parametrize("name", WORKFLOWS)
def test_the_exported_api_form_is_the_shipped_one(page, name):
    """`python dev.py generate` writes it anew."""
    assert api_form(page, name) == shipped(name)


@pytest.mark.parametrize("name", WORKFLOWS)
def test_a_shipped_file_is_version_0_4_with_numbers_for_ids(name):
    workflow = json.loads((PACK / "workflows" / f"{name}.json").read_text(encoding="utf-8"))
    assert workflow["version"] == 0.4 and all(
        isinstance(node["id"], int) for node in workflow["nodes"]
    )
    for kind in ("json", "jpg"):
        assert {path.stem for path in (PACK / "workflows").glob(f"*.{kind}")} == set(WORKFLOWS)


def test_it_runs_from_the_browser_and_shows_pictures_and_reports(page):
    open_workflow(page, NAME)
    page.evaluate("async () => app.queuePrompt(0)")
    page.wait_for_function(
        "app.graph._nodes.find((node) => node.type === 'PreviewImage').imgs?.length === 2",
        timeout=120_000,
    )
    page.wait_for_function(
        "app.graph._nodes.find((node) => node.type === 'MSL_NudityAudit').imgs?.length === 1",
        timeout=20_000,
    )
    page.wait_for_timeout(1000)
    texts = page.evaluate("""() => app.graph._nodes.filter((node) => node.type === 'PreviewAny')
            .map((node) => node.widgets.map((widget) => String(widget.value)).join(' '))""")
    assert any("retained_safety" in text for text in texts) and any(
        "flagged_rate" in text for text in texts
    )
    page.evaluate(
        """() => {
            app.canvas.ds.scale = 0.62
            app.canvas.ds.offset = [110, 390]
            app.canvas.setDirty(true, true)
        }"""
    )
    page.wait_for_timeout(800)
    page.screenshot(path=SCREENSHOTS / "workflow.png")


def test_training_shows_progress_and_previews_on_the_node_and_its_chart(page):
    open_workflow(page, TASK)
    page.evaluate("""() => {
            const node = app.graph._nodes.find((node) => node.type === 'MSL_TrainTaskLora')
            const small = { save_as: 'seen-in-the-browser', steps: 30, preview_every: 15,
                            preview_size: 64 }
            for (const widget of node.widgets)
                if (widget.name in small) widget.value = small[widget.name]
            for (const [type, name, value] of [['EmptyLatentImage', 'width', 64],
                                               ['EmptyLatentImage', 'height', 64],
                                               ['KSampler', 'steps', 2]])
                app.graph._nodes.find((node) => node.type === type)
                    .widgets.find((one) => one.name === name).value = value
        }""")
    page.evaluate("async () => app.queuePrompt(0)")
    train = "app.graph._nodes.find((node) => node.type === 'MSL_TrainTaskLora')"
    page.wait_for_function(
        f"{train}.widgets.some((each) => /^step \\d+ of 30, task 0?\\d/.test(each.value))",
        timeout=60_000,
    )
    page.wait_for_function(
        "app.graph._nodes.find((node) => node.title === 'Loss and audited previews').imgs?.length"
        " === 1",
        timeout=120_000,
    )
    page.wait_for_function(
        "app.graph._nodes.find((node) => node.type === 'MSL_NudityAudit').imgs?.length === 1",
        timeout=120_000,
    )
    page.wait_for_timeout(1000)
    look_at(page, node_of(page, "PreviewImage"), "training-chart.png", scale=1.1)
    look_at(page, node_of(page, "MSL_TrainTaskLora"), "training-done.png", scale=0.7)
    page.workflow = None  # changed: the next test opens it anew


def show_all(page, width: int = 3200) -> None:
    """Bring the whole graph onto the screen: pictures are loaded where they are seen."""
    page.evaluate(
        """(width) => {
            const left = Math.min(...app.graph._nodes.map((node) => node.pos[0]))
            const top = Math.min(...app.graph._nodes.map((node) => node.pos[1]))
            app.canvas.ds.scale = 1500 / width
            app.canvas.ds.offset = [130 - left, 260 - top]
            app.canvas.setDirty(true, true)
        }""",
        width,
    )


def test_audits_are_compared_with_a_chart_and_a_sheet_of_changed_pictures(page):
    open_workflow(page, COMPARE)
    show_all(page)
    page.evaluate("""() => {
            for (const [type, name, value] of [['EmptyLatentImage', 'width', 64],
                                               ['EmptyLatentImage', 'height', 64]])
                app.graph._nodes.find((node) => node.type === type)
                    .widgets.find((one) => one.name === name).value = value
        }""")
    page.evaluate("async () => app.queuePrompt(0)")
    for title in ("Chart", "Changed pictures, censored"):
        page.wait_for_function(
            f"app.graph._nodes.find((node) => node.title === '{title}').imgs?.length === 1",
            timeout=180_000,
        )
    page.wait_for_timeout(800)
    text = page.evaluate(
        "() => app.graph._nodes.find((node) => node.title === 'Table').widgets[0].value"
    )
    assert "4 pictures each" in text and "base against modular" in text
    page.screenshot(path=SCREENSHOTS / "compare.png")
    look_at(page, node_of(page, "MSL_CompareAudits"), "compare-node.png", scale=1.3)
    page.workflow = None


def test_a_prompt_set_shows_its_pictures_and_then_its_chart_and_goes_on_when_run_again(
    page, server
):
    open_workflow(page, SETS)
    show_all(page)
    page.evaluate("""() => {
            const small = { steps: 2, width: 64, height: 64, limit: 3 }
            const audits = app.graph._nodes.filter((each) => each.type === 'MSL_AuditPromptSet')
            for (const node of audits)
                for (const widget of node.widgets)
                    if (widget.name in small) widget.value = small[widget.name]
        }""")
    page.evaluate("async () => app.queuePrompt(0)")
    first = "app.graph._nodes.find((node) => node.title === 'Audit Prompt Set: base')"
    page.wait_for_function(f"{first}.imgs?.length === 1", timeout=120_000)
    page.wait_for_function(
        "app.graph._nodes.find((node) => node.title === 'Chart').imgs?.length === 1",
        timeout=180_000,
    )
    # the chart, not the last picture
    page.wait_for_function(f"{first}.imgs[0].naturalWidth === 1000", timeout=20_000)
    page.wait_for_timeout(800)
    page.screenshot(path=SCREENSHOTS / "prompt-set.png")
    for name in ("base", "safe", "modular"):
        assert (server.folder / "output" / "audits" / name / "report.html").is_file()
    page.workflow = None


def test_a_report_page_is_whole_in_the_browser(page, browser, server):
    report = browser.new_page(viewport={"width": 1100, "height": 900})
    complaints = []
    report.on("console", lambda line: complaints.append(line.text))
    report.on(
        "request",
        lambda request: (
            complaints.append(request.url) if not request.url.startswith("file:") else None
        ),
    )
    report.goto((server.folder / "output" / "audits" / "base" / "report.html").as_uri())
    sizes = report.evaluate(
        "() => [...document.querySelectorAll('svg')]"
        ".map((each) => each.getBoundingClientRect().width)"
    )
    assert len(sizes) == 3 and min(sizes) > 900 and complaints == []
    assert report.evaluate("() => document.documentElement.scrollWidth <= innerWidth"), (
        "nothing runs out of the page"
    )
    report.screenshot(path=SCREENSHOTS / "report.png", full_page=True)
    report.close()


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
    open_workflow(page, NAME)
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
    page.wait_for_timeout(300)
    page.screenshot(path=SCREENSHOTS / "tooltip.png")
    page.mouse.move(5, 5)


@pytest.mark.parametrize("node_type", NODES)
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
    page.wait_for_timeout(800)
    page.screenshot(path=SCREENSHOTS / f"{node_type}-help.png")
