"""What a person sees of a withheld picture: in the graph, on saving nodes, and in the gallery."""

import json
from concurrent.futures import ThreadPoolExecutor

import pytest
from modular_safety_lora.lab import assets
from modular_safety_lora.lab.frontend import browsing, opened, settle
from modular_safety_lora.lab.server import Server
from screenshots import SCREENSHOTS

pytestmark = pytest.mark.long  # a server of its own
LIGHT = [233, 236, 239]  # the notice's ground


def of(kind: str, **inputs) -> dict:
    return {"class_type": kind, "inputs": inputs}


GRAPH = {
    "1": of("LoadImage", image="astronaut.png"),
    "2": of("EmptyImage", width=512, height=512, batch_size=1, color=0x5A7A9A),
    "3": of("ImageBatch", image1=["2", 0], image2=["1", 0]),
    "4": of("VAELoader", vae_name="pixel_space"),
    "5": of("VAEEncode", pixels=["3", 0], vae=["4", 0]),
    "6": of("VAEDecode", samples=["5", 0], vae=["4", 0]),
    "7": of("PreviewImage", images=["6", 0]),
    "8": of("SaveImage", images=["6", 0], filename_prefix="a"),
    "9": of("SaveImage", images=["1", 0], filename_prefix="b"),
}
PLACES = {"1": (20, 40), "6": (360, 40), "7": (20, 400), "8": (360, 400), "9": (700, 40)}
SHOWN = "() => ['7', '8', '9'].every((id) => app.nodeOutputs?.[id]?.images?.length)"
CORNERS = """async () => {
    const found = []
    for (const id of ['7', '8', '9']) for (const each of app.nodeOutputs[id].images) {
        const picture = new Image()
        picture.src = '/api/view?' + new URLSearchParams(each)
        await picture.decode()
        const canvas = document.createElement('canvas')
        canvas.width = canvas.height = 1
        canvas.getContext('2d').drawImage(picture, 0, 0)
        found.push([...canvas.getContext('2d').getImageData(0, 0, 1, 1).data.slice(0, 3)])
    }
    return found
}"""


@pytest.fixture(scope="module")
def held(tmp_path_factory):
    tmp_path = tmp_path_factory.mktemp("held")
    for place in ("input", "user"):
        (tmp_path / place).mkdir()
    assets.astronaut(tmp_path / "input" / "astronaut.png")
    settings = json.dumps({"require_audit": {"preset": "faces"}})
    (tmp_path / "user" / "modular-safety-lora.json").write_text(settings)
    with Server(tmp_path, ("--cpu", "--disable-api-nodes")) as running:
        yield running


CASES = {  # language, Nodes 2.0, size, and what the toast says
    "graph": ("en", False, (1280, 800), "audit (faces) flagged"),
    "nodes-2-fr": ("fr", True, (1280, 800), "administrateur (faces)"),
    "nodes-2-fr-wide": ("fr", True, (1700, 1000), "administrateur (faces)"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_notice_stands_where_a_picture_was(held, chromium, case):
    """In a thread of its own: another browser of the session may hold this one's event loop."""
    with ThreadPoolExecutor(1) as pool:
        plain, *others = pool.submit(seen, held, chromium, case).result()
    assert plain != LIGHT and others[1] == plain and others[0] == others[2] == others[3] == LIGHT


TABS = {"assets": ".assets-tab-button", "queue": "[data-testid=queue-overlay-toggle]"}
SPOKEN = "document.getElementById('vue-app').__vue_app__.config.globalProperties.$i18n.locale"
SET = "async ([name, value]) => app.extensionManager.setting.set(name, value)"


def seen(held: Server, chromium: str, case: str) -> list:
    """The colour in the corner of each picture that the nodes show; pictures on the way."""
    SCREENSHOTS.mkdir(exist_ok=True)
    language, nodes_2, size, told = CASES[case]
    # each is decoded, none comes from the cache
    graph = GRAPH | {
        "2": of("EmptyImage", width=512, height=512, batch_size=1, color=0x5A7A00 + len(case))
    }
    with browsing(chromium) as browser:
        page = opened(browser, held.url)
        page.set_viewport_size(dict(zip(("width", "height"), size, strict=True)))
        page.evaluate(SET, ["Comfy.VueNodes.Enabled", nodes_2])
        page.evaluate(SET, ["Comfy.Locale", language])
        page.wait_for_function(f"(language) => {SPOKEN} === language", arg=language)
        page.wait_for_timeout(1500)  # the graph is built again
        settle(page)
        page.evaluate("(graph) => app.loadApiJson(graph, 'withheld')", graph)
        page.evaluate(
            """(places) => {
                for (const node of app.graph._nodes) {
                    node.pos = places[node.id] ?? [-900, 60 * node.id]
                    if (places[node.id]) node.size = [310, 320]
                }
                app.canvas.ds.scale = 0.95
                app.canvas.ds.offset = [90, 70]
            }""",
            {name: list(place) for name, place in PLACES.items()},
        )
        page.evaluate("async () => app.queuePrompt(0)")
        page.wait_for_function(SHOWN, timeout=120_000)
        page.get_by_text(told).first.wait_for(timeout=20_000)
        settle(page)
        page.wait_for_timeout(1500)
        page.screenshot(path=SCREENSHOTS / f"withheld-{case}.png")
        assert page.evaluate("() => app.graph._nodes.length") == len(graph)
        corners = page.evaluate(CORNERS)
        for tab in TABS:
            what = page.locator(TABS[tab]).first
            what.click()
            page.wait_for_timeout(2500)
            page.screenshot(path=SCREENSHOTS / f"withheld-{case}-{tab}.png")
            what.click()
        assert not [each for each in page.console if "withheld" in each]
        return corners
