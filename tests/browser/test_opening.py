"""Each shipped workflow as it opens from the Templates in a window of 1280 x 800: can it be read?

In both renderings of the frontend. A picture of each goes to `test-output`.
"""

import json
from itertools import combinations

import pytest
from modular_safety_lora.lab.frontend import settle
from modular_safety_lora.lab.layout import SCALE, TITLE
from modular_safety_lora.lab.plans import MERGE, PLANS
from modular_safety_lora.lab.server import PACK, PACK_NAME
from screenshots import SCREENSHOTS, tried

WINDOW = {"width": 1280, "height": 800}
NODES_2 = "async (on) => app.extensionManager.setting.set('Comfy.VueNodes.Enabled', on)"
OPEN = """async ([address, openSource]) => {
    const graph = await (await fetch(address)).json()
    await app.loadGraphData(graph, true, true, null, { openSource })
}"""
# pixels of the window: where each node is with its title, and what lies over the note's corners
SEEN = """() => {
    const { ds, canvas } = app.canvas, frame = canvas.getBoundingClientRect()
    const box = (node) => {
        const shown = document.querySelector(`[data-node-id="${node.id}"]`)
        if (shown) return shown.getBoundingClientRect()
        const [x, y] = [0, 1].map((axis) => (node.pos[axis] + ds.offset[axis]) * ds.scale)
        const title = LiteGraph.NODE_TITLE_HEIGHT * ds.scale
        const { collapsed } = node.flags
        const [width, height] = collapsed ? [node._collapsed_width, 0] : node.size
        return new DOMRect(frame.x + x, frame.y + y - title,
                           width * ds.scale, height * ds.scale + title)
    }
    const boxes = app.graph._nodes.map((node) => [Number(node.id), node.title, box(node)])
    const note = box(app.graph._nodes.find((node) => node.type === 'MarkdownNote'))
    const corners = [note.left + 6, note.right - 6].flatMap(
        (x) => [note.top + 6, note.bottom - 6].map((y) => document.elementFromPoint(x, y)))
    const text = document.querySelector('.comfy-markdown, .widget-markdown')
    const lines = [...text.querySelectorAll('h2, p, li')].map((it) => it.getBoundingClientRect())
    return {
        scale: ds.scale, offset: [...ds.offset], rough: app.canvas.low_quality,
        readable: app.canvas.min_font_size_for_lod / LiteGraph.NODE_TEXT_SIZE,
        boxes: boxes.map(([id, title, it]) => [id, title, [it.left, it.top, it.right, it.bottom]]),
        covered: corners.filter((it) => !it?.closest(
            '#graph-canvas, .comfy-markdown, [data-node-id]')).length,
        hidden: Math.max(...lines.map((it) => it.bottom)) - text.getBoundingClientRect().bottom,
        letters: text.innerText.length,
        marked: Object.keys(app.graph.extra).filter((key) => key.startsWith('msl_')),
    }
}"""


@pytest.fixture(scope="module", params=[False, True], ids=["classic", "nodes-2"])
def window(page, request):
    """The page in a window of that size, in one of the frontend's renderings."""
    before = page.viewport_size
    page.set_viewport_size(WINDOW)
    page.evaluate(NODES_2, request.param)
    settle(page)
    yield page, "nodes-2" if request.param else "classic"
    page.evaluate(NODES_2, False)
    page.set_viewport_size(before)
    page.workflow = None
    settle(page)


def opened(page, name: str, source: str | None = "template") -> dict:
    """Open a workflow as the list of templates does; gives what is seen of it."""
    page.workflow = None
    page.evaluate(OPEN, [f"/api/workflow_templates/{PACK_NAME}/{name}.json", source])
    settle(page)
    return page.evaluate(SEEN)


def over(one: list[float], other: list[float]) -> bool:
    """Do two boxes (left, top, right, bottom) share more than an edge?"""
    return all(max(one[i], other[i]) + 1 < min(one[i + 2], other[i + 2]) for i in (0, 1))


NAMES = [path.stem for path in (PACK / "workflows").glob("*.json")]


@pytest.mark.parametrize("name", tried(NAMES, lambda name: name in PLANS))
def test_a_workflow_opens_readable_with_its_note_and_no_node_over_another(window, name):
    page, rendering = window
    seen = opened(page, name)
    page.screenshot(path=SCREENSHOTS / f"opens-{rendering}-{name}.png")
    assert seen["scale"] >= max(0.6, 1.2 * seen["readable"]) and not seen["rough"]
    assert seen["covered"] == 0, "the sidebar, the menu or a node lies over the note"
    assert seen["letters"] > 200 and seen["hidden"] <= 0, "the note is cut"
    boxes = seen["boxes"]
    whole = [
        title
        for _, title, (left, top, right, bottom) in boxes
        if left >= 58 and top >= 40 and right <= WINDOW["width"] and bottom <= WINDOW["height"]
    ]
    graph = json.loads((PACK / "workflows" / f"{name}.json").read_text(encoding="utf-8"))
    (note,) = (node for node in graph["nodes"] if node["type"] == "MarkdownNote")
    assert note["title"] in whole and len(whole) >= 3
    assert [(a, b) for (_, a, one), (_, b, two) in combinations(boxes, 2) if over(one, two)] == []
    high = {node["id"]: node["size"][1] + 2 * TITLE for node in graph["nodes"]}
    grown = [title for at, title, (_, top, _, low) in boxes if low - top > high[at] * seen["scale"]]
    assert grown == [], "HEIGHTS has no room for them"
    assert seen["marked"] == [], "what a user saves opens as the user saved it"


def test_a_file_that_is_dropped_and_what_a_user_saved_open_at_their_own_views(window):
    page, _ = window
    assert opened(page, MERGE, None)["scale"] == SCALE
    page.evaluate("""async () => {
        const graph = app.graph.serialize()
        graph.extra.ds = { scale: 1.3, offset: [-400, 20] }
        await app.loadGraphData(graph)
    }""")
    settle(page)
    seen = page.evaluate(SEEN)
    assert (seen["scale"], seen["offset"]) == (1.3, [-400, 20]) and seen["marked"] == []
