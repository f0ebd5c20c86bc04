"""What the pack's own messages say in the frontend, and the digests that its nodes give to copy."""

import hashlib

import pytest
from modular_safety_lora.lab import assets
from modular_safety_lora.lab.frontend import open_workflow, settle
from modular_safety_lora.lab.plans import MERGE
from modular_safety_lora.modules.files import load_safety
from screenshots import SCREENSHOTS
from test_inputs import NODES_2

# until 1.57 and since 1.58
TOASTS = ".p-toast-message, [data-testid=toast]"
NONE = "() => { const said = app.extensionManager.toast; (said.removeAll ?? said.dismissAll)() }"
LOADER = """([name, pin]) => {
    app.graph.clear()
    const [loader, shown] = ['MSL_LoadSafetyLora', 'PreviewAny'].map(
        (type) => LiteGraph.createNode(type))
    loader.pos = [60, 120]
    shown.pos = [560, 120]
    app.graph.add(loader)
    app.graph.add(shown)
    loader.connect(1, shown, 0)
    const set = (name, value) => {
        loader.widgets.find((each) => each.name === name).value = value
    }
    set('lora_name', name)
    set('sha256', pin)
    app.canvas.ds.scale = 1.2
    app.canvas.ds.offset = [120, 60]
}"""
SET = """([type, name, value]) => {
    app.graph._nodes.find((node) => node.type === type)
        .widgets.find((each) => each.name === name).value = value
}"""
RUN = "async () => app.queuePrompt(0)"


@pytest.fixture
def told(page):
    """Runs what is on the page, and gives the words of the pack's messages."""

    def run(picture: str, some: bool = True) -> list[str]:
        page.evaluate(NONE)
        page.wait_for_function(f"!document.querySelector('{TOASTS}')")
        page.evaluate(RUN)
        if some:
            page.locator(TOASTS).first.wait_for(timeout=120_000)
        settle(page)
        page.screenshot(path=SCREENSHOTS / picture)
        return page.locator(TOASTS).all_inner_texts()

    yield run
    page.evaluate(NONE)
    page.evaluate(NODES_2, False)
    page.workflow = None


def place_loader(page, pin: str = "") -> None:
    page.evaluate(LOADER, [assets.SAFETY, pin])
    page.workflow = None
    settle(page)


def test_an_error_of_the_packs_nodes_is_told_in_a_sentence(page, told):
    place_loader(page, "0" * 64)
    (message,) = told("error-told.png")
    title, said = message.split("\n", 1)
    assert title == "Modular Safety LoRA: Load Safety LoRA (locked)"
    assert said.startswith(f"{assets.SAFETY}: this is not the safety LoRA that the workflow")
    details = page.get_by_text("View details")
    details.click()
    page.get_by_text("Exception Type").first.wait_for(timeout=20_000)
    settle(page)
    page.screenshot(path=SCREENSHOTS / "error-details.png")
    shown = page.evaluate("() => document.body.innerText")
    assert "Exception Type: Modular Safety LoRA.ModuleFileError" in shown.replace("**", "")


def test_an_error_of_the_pack_in_a_stock_node_is_told_too(page, told):
    open_workflow(page, MERGE)
    page.evaluate(
        """(name) => {
        const of = (type) => app.graph._nodes.find((node) => node.type === type)
        const [merge, sampler] = [of('MSL_ModularMerge'), of('KSampler')]
        const loader = LiteGraph.createNode('LoraLoaderModelOnly')
        app.graph.add(loader)
        loader.widgets[0].value = name
        merge.connect(0, loader, 0)
        loader.connect(0, sampler, 0)
        const size = of('EmptyLatentImage')
        for (const widget of size.widgets) if (widget.name !== 'batch_size') widget.value = 64
    }""",
        assets.STYLE,
    )
    (message,) = told("error-of-lock.png")
    assert message.startswith("Modular Safety LoRA: ")
    assert "is not whole on the model that samples. Load other LoRAs with Load Task LoRA" in message


def test_a_refused_value_is_told_before_anything_runs(page, told):
    open_workflow(page, MERGE)
    page.evaluate(SET, ["MSL_NudityAudit", "classes", "FACE"])
    (message,) = told("error-refused.png")
    assert (
        "Nudity Audit" in message
        and "The detector has no class 'FACE'. Perhaps FACE_FEMALE" in message
    )
    assert page.evaluate("() => app.extensionManager.lastExecutionError") is None
    page.evaluate(SET, ["MSL_NudityAudit", "classes", ""])
    page.evaluate(SET, ["MSL_ModularMerge", "on_conflict", "nothing"])
    (message,) = told("error-not-in-list.png")
    assert "on_conflict: nothing is not in the list. Choose another one." in message


WITHHELD = """(detail) => app.api.socket.dispatchEvent(new MessageEvent('message', {
    data: JSON.stringify({ type: 'modular-safety-lora.withheld', data: detail })
}))"""


@pytest.mark.parametrize("count", [1, pytest.param(3, marks=pytest.mark.long)])
def test_a_picture_that_was_withheld_is_told_as_the_server_says_it(page, count):
    """The message comes over the frontend's own socket."""
    open_workflow(page, MERGE)
    page.evaluate(NONE)
    page.wait_for_function(f"!document.querySelector('{TOASTS}')")
    node = page.evaluate("() => app.graph._nodes.find((node) => node.type === 'VAEDecode').id")
    page.evaluate(WITHHELD, {"node": str(node), "count": count, "preset": "strict"})
    page.locator(TOASTS).first.wait_for(timeout=20_000)
    settle(page)
    page.screenshot(path=SCREENSHOTS / f"withheld-{count}.png")
    (message,) = page.locator(TOASTS).all_inner_texts()
    title, said = message.split("\n", 1)
    what = "A picture was withheld" if count == 1 else "3 pictures were withheld"
    assert title == "Modular Safety LoRA: VAE Decode"
    assert said.startswith(f"{what}: the operator's audit (strict) flagged")
    page.evaluate(NONE)


def test_errors_of_others_are_left_to_the_frontend(page, told):
    page.evaluate("""() => {
        app.graph.clear()
        const [image, shown] = ['LoadImage', 'PreviewImage'].map(
            (type) => LiteGraph.createNode(type))
        app.graph.add(image)
        app.graph.add(shown)
        image.connect(0, shown, 0)
        image.widgets[0].value = 'missing.png'
    }""")
    assert told("error-of-others.png", some=False) == []


@pytest.mark.parametrize("nodes_2", [False, True], ids=["classic", "nodes-2"])
def test_the_loader_shows_its_digests_and_copies_them(page, told, server, nodes_2):
    file = server.folder / "models" / "loras" / assets.SAFETY
    seal, whole = (
        load_safety(file, file.name).sha256,
        hashlib.sha256(file.read_bytes()).hexdigest(),
    )
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.evaluate(NODES_2, nodes_2)
    place_loader(page)
    page.evaluate(RUN)
    found = "app.graph._nodes[0].widgets.filter((each) => each.type === 'button')"
    page.wait_for_function(f"{found}.length === 3", timeout=60_000)
    settle(page)
    page.screenshot(path=SCREENSHOTS / f"digests-{'nodes-2' if nodes_2 else 'classic'}.png")
    assert page.evaluate(f"() => {found}.map((each) => each.label)") == [
        f"Copy seal {seal[:12]}…",
        f"Copy file's SHA-256 {whole[:12]}…",
        "No report",
    ]
    if nodes_2:
        page.get_by_text(f"Copy seal {seal[:12]}").click()
    else:
        page.evaluate(f"() => {found}[0].callback()")
    page.get_by_text("Copied").wait_for(timeout=10_000)
    assert page.evaluate("async () => navigator.clipboard.readText()") == seal
    assert page.evaluate("() => app.graph._nodes[0].serialize().widgets_values.length") == 2
    page.evaluate(RUN)
    settle(page)
    assert page.evaluate(f"() => {found}.length") == 3
