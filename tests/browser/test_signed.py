"""A signed file that is dropped onto ComfyUI opens its workflow; the node as a person sees it."""

import base64

import pytest
from drawn import DRAWN, of
from modular_safety_lora.lab.frontend import settle
from modular_safety_lora.provenance.reading import inspect
from screenshots import SCREENSHOTS

pytestmark = pytest.mark.long
TYPES = {"png": "image/png", "webp": "image/webp", "jpeg": "image/jpeg"}
SIGNED = {
    str(10 + place): {
        **DRAWN["10"],
        "inputs": DRAWN["10"]["inputs"] | {"format": each, "filename_prefix": f"signed-{each}"},
    }
    for place, each in enumerate(TYPES)
}
GRAPH = {**DRAWN, **SIGNED, "20": of("SaveImage", images=["9", 0], filename_prefix="signed-not")}
PLACES = {"9": [20, 40], "10": [420, 40], "20": [820, 40]}
SHOWN = "() => ['10', '11', '12', '20'].every((id) => app.nodeOutputs?.[id]?.images?.length)"
PLACED = """(places) => {
    for (const node of app.graph._nodes) {
        node.pos = places[node.id] ?? [-1200, 60 * node.id]
        if (places[node.id]) node.size = [360, 560]
    }
    app.canvas.ds.scale = 0.95
    app.canvas.ds.offset = [90, 70]
}"""
DROPPED = """async ([name, type, content]) => {
    app.graph.clear()
    const bytes = Uint8Array.from(atob(content), (each) => each.charCodeAt(0))
    await app.handleFile(new File([bytes], name, { type }))
}"""


def test_what_is_saved_opens_again_and_tells_its_verdict(page, server):
    page.set_viewport_size({"width": 1280, "height": 800})
    page.evaluate("(graph) => app.loadApiJson(graph, 'signed')", GRAPH)
    page.evaluate(PLACED, PLACES)
    page.evaluate("async () => app.queuePrompt(0)")
    page.wait_for_function(SHOWN, timeout=120_000)
    page.get_by_text("call the issuer unknown").first.wait_for(state="attached")
    settle(page)
    page.wait_for_timeout(1000)
    page.screenshot(path=SCREENSHOTS / "signed.png")
    for each in (*TYPES, "not"):
        path = sorted((server.folder / "output").glob(f"signed-{each}_*"))[0]
        found = inspect(path)
        assert found["fault"] is None, found
        assert found["signed"].startswith("no" if each == "not" else "C2PA")
        content = base64.b64encode(path.read_bytes()).decode()
        page.evaluate(DROPPED, [path.name, TYPES.get(each, "image/png"), content])
        settle(page)
        kinds = page.evaluate("() => app.graph._nodes.map((node) => node.type)")
        assert ("MSL_SaveWithProvenance" in kinds) == (each != "jpeg"), (each, kinds)
    page.workflow = "signed"
